"""A shard alone: frames in to frames out; its memory; its longest pause. Prints tables."""

from __future__ import annotations

import argparse
import statistics
import sys
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from common import frames
from loadtests.records import FRAME, LIFETIME, Swarms, make_store, reply_buffer
from shard.service import MOST_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from shard.slice_store import SliceStore

ROUNDS = 10
RUNS = 3
HOT_PEERS = 500_000
LONGEST = 2_000_000  # nanoseconds that no step may take
console = Console(width=120)


def fill(store: SliceStore, swarms: Swarms, out: memoryview) -> int:
    """Announce every peer once; returns how many there are."""
    everyone = swarms.all_peers()
    for one in swarms.frames_of(everyone):
        store.answer(one, out, 1, 1)
    return len(everyone)


def peers_in(out: memoryview) -> int:
    """How many peers a frame of replies lists."""
    count = int.from_bytes(out[frames.AT_COUNT : frames.AT_COUNT + 4], "little")
    at = frames.HEADER
    many = 0
    for _ in range(count):
        many += int.from_bytes(out[at + frames.AT_OWN_FAMILY : at + frames.AT_OWN_FAMILY + 2], "little")
        at += int.from_bytes(out[at : at + 4], "little")
    return many


class Speed(NamedTuple):
    """Nanoseconds an announce of a known peer, median of the rounds, and half of their spread; how many of the peers
    that a model lists were listed."""

    torrents: int
    peers: int
    nanoseconds: float
    spread: float
    share: float

    @property
    def row(self) -> tuple[str, ...]:
        """For the table."""
        return (
            f"{self.torrents:,}", f"{self.peers:,}", f"{self.nanoseconds:.0f}", f"{self.spread:.0f}",
            f"{1e3 / self.nanoseconds:.2f}", f"{100 * self.share:.1f} %",
            "" if self.is_right else "INVALID: too few peers",
        )  # fmt: skip

    @property
    def is_right(self) -> bool:
        """Whether the answers have the peers that they should."""
        return self.share >= 0.95


def speed(torrents: int, peers: int) -> Speed:
    """Announce known peers, the answers checked against the sizes of the swarms."""
    swarms, store, out = Swarms(torrents, peers), make_store(4 << 30), reply_buffer()
    total = fill(store, swarms, out)
    rounds = []
    listed = expected = 0
    for _ in range(ROUNDS):
        asked = [swarms.pick() for _ in range(60 * FRAME)]
        batch = list(swarms.frames_of(asked))
        spent = 0
        for one in batch:
            began = thread_time_ns()
            store.answer(one, out, 2, 1)
            spent += thread_time_ns() - began
            listed += peers_in(out)
        expected += sum(min(50, swarms.sizes[swarm] - 1) for swarm, _ in asked)
        rounds.append(spent / len(asked))
    return Speed(torrents, total, statistics.median(rounds), (max(rounds) - min(rounds)) / 2, listed / expected)


def one_torrent() -> Speed:
    """The speed on a single torrent of HOT_PEERS peers."""
    return speed(1, 2 * HOT_PEERS)  # a torrent has half of what all together would have if they were many


def print_speed() -> bool:
    """Whether the answers were right."""
    found = [speed(2_000, 50_000), speed(20_000, 1_000_000), speed(200_000, 3_600_000), one_torrent()]
    print_speeds(found)
    return all(each.is_right for each in found)


def print_speeds(found: list[Speed]) -> None:
    """A table of them."""
    table = Table(title=f"a shard alone, frames of {FRAME} announces, 50 peers wanted, {ROUNDS} rounds")
    for name in ("torrents", "peers", "ns/announce", "+-", "M/s a core", "peers, of the model's", ""):
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(*each.row)
    console.print(table)


def print_memory() -> None:
    """Bytes a peer and a torrent, of what the store has taken."""
    table = Table(title="memory of the store")
    for name in ("torrents", "peers", "MiB", "bytes a peer", "bytes a torrent"):
        table.add_column(name, justify="right")
    for torrents, peers in ((100_000, 5_000_000), (1_000_000, 1_000_000)):
        store = make_store(4 << 30)
        empty = store.bytes_taken()
        total = fill(store, Swarms(torrents, peers) if peers > torrents else Singles(torrents), reply_buffer())
        taken = store.bytes_taken() - empty
        table.add_row(
            f"{torrents:,}", f"{total:,}", f"{taken / 2**20:.1f}", f"{taken / total:.1f}", f"{taken / torrents:.1f}"
        )
    console.print(table)


class Singles(Swarms):
    """Swarms of one peer each."""

    def __init__(self, torrents: int) -> None:
        super().__init__(torrents, 0)


class Longest:
    """The longest of each kind of step, by the thread's processor time and by the wall.

    Other guests of this machine's host are billed to us now and then. So all runs do the same steps in the
    same order, and a step took as long as it took in the quickest of them.
    """

    def __init__(self) -> None:
        self.runs: list[dict[str, list[tuple[int, int]]]] = []

    def begin(self) -> None:
        """Begin another run."""
        self.runs.append({})

    def run(self, name: str, call: Callable[..., int], *arguments: object) -> int:
        """Call and note."""
        wall, cpu = perf_counter_ns(), thread_time_ns()
        result = call(*arguments)
        cpu, wall = thread_time_ns() - cpu, perf_counter_ns() - wall
        self.runs[-1].setdefault(name, []).append((cpu, wall))
        return result

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Kind of step, how many, the longest by processor time and by the wall, in nanoseconds."""
        rows = []
        for name in self.runs[0]:
            steps = list(zip(*(run[name] for run in self.runs), strict=True))
            cpu = max(min(took[0] for took in step) for step in steps)
            wall = max(min(took[1] for took in step) for step in steps)
            rows.append((name, len(steps), cpu, wall))
        return rows


def print_pauses() -> bool:
    """Whether no step of a shard with 5 M peers, 500,000 of them in one swarm, took over 2 ms of processor time."""
    longest = Longest()
    for _ in range(RUNS):
        longest.begin()
        peers = pause(longest)
    table = Table(title=f"longest steps with {peers:,} peers, 500,000 of them in one swarm, best of {RUNS} equal runs")
    for name in ("step", "steps", "longest, CPU ms", "wall ms"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, count, cpu, wall in longest.rows():
        table.add_row(name, f"{count:,}", f"{cpu / 1e6:.2f}", f"{wall / 1e6:.2f}")
    console.print(table)
    return all(cpu <= LONGEST for _, _, cpu, _ in longest.rows())


def pause(longest: Longest) -> int:
    """One run: fill, dump, load, sweep, age, sweep until nobody is left; returns how many peers there were."""
    swarms, out, store = Swarms(100_000, 4_500_000), reply_buffer(), make_store(4 << 30)
    swarms.sizes[0] = 500_000
    for one in swarms.frames_of(swarms.all_peers()):
        longest.run(f"announce, {FRAME} new peers", store.answer, one, out, 1, 1)
    dump_all(store, longest)
    sweep(store, longest, "sweep, nobody expires", 2)
    half = [swarms.pick() for _ in range(500_000)] + [(0, peer) for peer in range(0, 500_000, 2)]
    for one in swarms.frames_of(half):
        longest.run(f"announce, {FRAME} known peers", store.answer, one, out, 2000, 1)
    sweep(store, longest, "sweep, most expire", LIFETIME + 10)
    sweep(store, longest, "sweep, all expire", LIFETIME + 2010)
    return sum(swarms.sizes)


def sweep(store: SliceStore, longest: Longest, name: str, now: int) -> None:
    """Sweep once round, in steps as the worker's."""
    target = store.rounds() + 2
    while store.rounds() < target:
        longest.run(name, store.sweep, now, MOST_STEPS)


def dump_all(store: SliceStore, longest: Longest) -> None:
    """Dump every slice into another store."""
    other, chunk = make_store(4 << 30), bytearray(frames.CHUNK)
    for slice_id in range(1024):
        cursor = bytearray(frames.CURSOR)
        while cursor[23] != 2:
            length = longest.run(f"dump, {len(chunk) >> 10} KiB", store.dump, slice_id, cursor, chunk, 1)
            longest.run(f"load, {len(chunk) >> 10} KiB", other.load, slice_id, bytes(chunk[:length]), 1)


def main() -> int:
    """0 if answers were right and no step too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help="speed, memory, pauses; all of them if none is named")
    wanted = parser.parse_args().part or ["speed", "memory", "pauses"]
    good = True
    if "speed" in wanted:
        good = print_speed() and good
    if "memory" in wanted:
        print_memory()
    if "pauses" in wanted:
        good = print_pauses() and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
