"""A shard at work: frames of records in, frames of replies out; expiry in small steps meanwhile."""

from __future__ import annotations

import secrets
from random import Random
from time import monotonic, thread_time_ns
from typing import TYPE_CHECKING

from common import counters, frames, metrics
from common.batch_io import allocate
from shard import slice_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from common.clock import SteadyClock
    from common.config import Config, Shard

TICK = 0.05  # seconds between two steps of the sweep
ROUND = 3.5  # seconds in which a sweep goes through all peers
HURRY = 0.001  # the same while the sweep is behind: after the next turn of the loop
MOST_STEPS = 8_000  # of one call: well under a millisecond
REPLIES = frames.HEADER + 2048 * slice_store.LARGEST_REPLY  # bytes: more than a gateway's frame can ask for


class OutOfMemoryError(Exception):
    """The system does not give the memory that the configuration asks for."""


class ShardWorker:
    """One shard: its store, its clock, and the buffer in which replies are written. draw: gives random bits."""

    def __init__(
        self, config: Config, shard: Shard, clock: SteadyClock, draw: Callable[[int], int] = secrets.randbits
    ) -> None:
        self.name = shard.name
        self.memory = shard.memory
        self.clock = clock
        try:
            room = shard.memory - slice_store.overhead(config.slices)
            memory = allocate(room)  # not in large pages: a fault would take milliseconds at once
        except MemoryError as error:
            raise OutOfMemoryError(f"shard {shard.name}: {error}") from error
        self.store = slice_store.SliceStore(
            memory,
            config.slices,
            config.interval,
            config.lifetime,
            config.limits.new_swarms,
            config.limits.entries,
            draw(64),
        )
        self.replies = allocate(REPLIES, huge=REPLIES)
        self.chunk = allocate(frames.CHUNK)  # of a slice, for another shard
        self.random = Random(draw(64))
        self.longest_step = 0  # thread CPU nanoseconds of the longest sweep step
        self.debt = 0.0  # steps that the sweep is behind
        self.last_tick = monotonic()

    def answer(self, frame: memoryview) -> memoryview:
        """Apply a frame of records; the frame of replies, valid until the next call. Raises ValueError."""
        length = self.store.answer(frame, self.replies, self.clock.seconds(), self.random.getrandbits(64))
        return self.replies[:length]

    def tick(self) -> float:
        """Sweep a little; returns after how many seconds to call again."""
        began = thread_time_ns()
        now = monotonic()
        self.debt += self.store.steps_of_a_round() * (now - self.last_tick) / ROUND
        self.last_tick = now
        self.debt -= self.store.sweep(self.clock.seconds(), max(64, min(MOST_STEPS, int(self.debt))))
        self.debt = min(max(self.debt, 0.0), 4.0 * self.store.steps_of_a_round())
        self.longest_step = max(self.longest_step, thread_time_ns() - began)
        return HURRY if self.debt > MOST_STEPS else TICK

    def totals(self) -> dict[str, int]:
        """What is stored, for the web page and for the operator."""
        peers = self.store.peers_by_kind()
        return {"torrents": self.store.swarm_count(), "seeders": sum(peers[1::2]), "leechers": sum(peers[::2])}

    def announces(self) -> int:
        """Announces applied so far."""
        values = self.store.counters()
        return sum(values[place] for place in (*counters.ANNOUNCE_FATES.values(), *counters.NOT_STORED.values()))

    def metrics(self) -> Iterable[Metric]:
        """What the shard counted and holds."""
        store = self.store
        yield from metrics.shard(
            store.counters(), store.peers_by_kind(), store.swarm_count(), store.bytes_taken(), self.memory
        )
        yield metrics.counter("shoal_sweep_rounds", "How often expiry went through all peers", store.rounds())
        yield metrics.gauge("shoal_sweep_debt_steps", "Steps that expiry is behind", self.debt)
        yield metrics.gauge(
            "shoal_longest_step_seconds", "Longest step of expiry, in processor time", self.longest_step / 1e9
        )
