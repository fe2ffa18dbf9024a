"""Checks a tracker's HTTP answers against what wrk announces to it, as wrk itself sees only whether an answer came."""

from __future__ import annotations

import http.client
import socket
import subprocess
from collections import defaultdict
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from loadtests import clusters, http_load

if TYPE_CHECKING:
    from collections.abc import Iterable

PREPARED = 2000  # announces of announce.lua, which sends them in turn
NUMWANT = 50  # theirs
SAMPLES = 400  # answers that are checked, of each tracker
ENOUGH = 0.95  # of the peers that they could have


class Announce(NamedTuple):
    """One that wrk sends."""

    target: str
    info_hash: bytes
    port: int
    leecher: bool


def listen_to_wrk() -> list[Announce]:
    """What announce.lua announces: it prepares 2,000 announces and sends them in turn. Raises RuntimeError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        target = f"http://127.0.0.1:{server.getsockname()[1]}/"
        command = ["wrk", "-t1", "-c1", "-d5s", "-s", str(clusters.YARDSTICK / "announce.lua"), target]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as wrk:
            try:
                heads = hear(server)
            except OSError as error:
                raise RuntimeError(f"wrk does not announce: {error}") from None
            finally:
                wrk.terminate()
    return list(dict.fromkeys(read_head(head) for head in heads))


def hear(server: socket.socket) -> list[str]:
    """The heads of as many requests as are prepared. wrk first tries whether it can connect. Raises OSError."""
    heads: list[str] = []
    while len(heads) < PREPARED:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            connection.settimeout(5)
            while len(heads) < PREPARED and (line := file.readline()):
                if line.startswith(b"GET "):
                    heads.append(line.decode())
                elif line == b"\r\n":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde")
    return heads


def read_head(line: str) -> Announce:
    """An announce from the first line of its request."""
    target = line.split()[1]
    query = dict(parse_qsl(urlsplit(target).query, encoding="latin-1", keep_blank_values=True))
    return Announce(target, query["info_hash"].encode("latin-1"), int(query["port"]), query["left"] != "0")


class Check:
    """Asks a tracker for announces that it has heard, and judges the answers by what it was told."""

    def __init__(self, announces: list[Announce]) -> None:
        self.swarms: dict[bytes, set[int]] = defaultdict(set)
        for announce in announces:
            self.swarms[announce.info_hash].add(announce.port)
        # Leechers only: trackers differ in what they give to seeders.
        leechers = [announce for announce in announces if announce.leecher]
        self.samples = leechers[:: max(1, len(leechers) // SAMPLES)]
        self.listed: list[int] = []
        self.wrong: dict[str, int] = defaultdict(int)

    def ask(self, port: int) -> None:
        """Announce each sample once more. What does not answer at all is lost."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for announce in self.samples:
            try:
                self.judge(announce, *fetch(connection, announce.target))
            except (OSError, http.client.HTTPException):
                connection.close()
                self.wrong["lost"] += 1
        connection.close()

    def judge(self, announce: Announce, status: int, body: bytes) -> None:
        """Note the peers of an answer, and what is wrong."""
        told, rest = read_body(body)
        peers = told.get(b"peers")
        if b"failure reason" in told:
            self.wrong["errors"] += 1
        elif status != 200 or rest.strip() or not isinstance(peers, bytes) or len(peers) % 6:
            self.wrong["malformed"] += 1
        else:
            self.judge_peers(announce, [peers[at : at + 6] for at in range(0, len(peers), 6)])

    def judge_peers(self, announce: Announce, peers: list[bytes]) -> None:
        """Note peers, each packed."""
        known = {http_load.LOCAL + port.to_bytes(2) for port in self.swarms[announce.info_hash]}
        self.listed.append(len(peers))
        self.wrong["strangers"] += sum(peer not in known for peer in peers)
        self.wrong["own"] += http_load.LOCAL + announce.port.to_bytes(2) in peers

    def possible(self) -> float:
        """Peers an answer could have: all others of the swarm, if they are not more than were asked for."""
        return mean(min(NUMWANT, len(self.swarms[sample.info_hash]) - 1) for sample in self.samples)

    def own(self) -> float:
        """Share of the answers that list the asker."""
        return self.wrong["own"] / max(len(self.listed), 1)

    def peers(self) -> float:
        """Peers an answer."""
        return mean(self.listed) if self.listed else 0.0

    def fault(self, kinds: Iterable[str]) -> str:
        """What is wrong with the answers; nothing if they are right."""
        wrong = [f"{self.wrong[kind]} {kind}" for kind in (*kinds, "lost") if self.wrong[kind]]
        if wrong:
            return f"of {len(self.samples)} answers checked: {', '.join(wrong)}"
        others = self.peers() - self.own()
        if others < ENOUGH * self.possible():
            return f"{others:.1f} peers an answer of {self.possible():.1f}"
        return ""


def fill(port: int, announces: list[Announce]) -> None:
    """Announce all, so that every swarm is whole. Raises RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        for announce in announces:
            fetch(connection, announce.target)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"gives an announce no answer: {error or type(error).__name__}") from None
    finally:
        connection.close()


def read_body(body: bytes) -> tuple[dict[bytes, object], bytes]:
    """The dictionary and what follows it: one tracker ends its answers with a line feed, which clients do not mind."""
    try:
        told, end = http_load.bdecode(body, 0)
    except (ValueError, IndexError):
        return {}, body
    return (told, body[end:]) if isinstance(told, dict) else ({}, body)


def fetch(connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    """Status and body; by a new connection if the tracker closed this one. Raises OSError, HTTPException."""
    try:
        return exchange(connection, target)
    except (ConnectionError, http.client.BadStatusLine):
        connection.close()  # it is opened again by the next request
        return exchange(connection, target)


def exchange(connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
    """One request. Raises OSError, HTTPException."""
    connection.request("GET", target, headers={"User-Agent": "qBittorrent/4.6.7"})
    answer = connection.getresponse()
    return answer.status, answer.read()
