"""What a load consists of, and whom it goes to: plain values that travel to worker processes as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one locust user does.

    A user owns its torrents, and its endpoints, of which each peer is one: so it knows what a tracker may answer.
    Shares are of 1. Torrent n has peers in proportion to (n + 1) ** -skew.
    """

    kind: Literal["udp", "http-kept", "http-oneshot"]
    rate: float  # requests a second
    torrents: int = 2000
    sources: int = 8  # addresses
    ports: int = 5000  # peers an address
    skew: float = 0.5
    hot: float = 0.0  # share of announces that go to torrent 0, beside its own
    seeds: float = 0.3  # share of peers that come as seeders
    stops: float = 0.02  # share of announces of present peers with that event
    completes: float = 0.01
    connects: float = 1 / 3  # share of requests, UDP
    scrapes: float = 0.0  # share of requests
    hashes: int = 10  # of a scrape
    want: int = 50  # peers
    ipv6: float = 0.25  # share of sources
    tries: int = 3  # retransmissions of what has no answer
    patience: float = 1.0  # seconds without an answer, over UDP, after which a request is sent again, or lost
    strict: bool = True  # False: nothing is missed that was announced
    keep: int = 100  # requests over a kept connection
    fill: bool = True  # announce every peer before latencies count
    fill_by_udp: bool = False  # and do that over UDP, which is quicker, whatever the kind


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A tracker, with UDP and HTTP on one port. `seed` makes the torrents of a run its own.

    sources: local addresses that loads come from; without any, the system's choice, or addresses of loopback.
    """

    host: str
    port: int
    seed: int
    sources: tuple[str, ...] = ()
