"""A shard alone: frames in to frames out; its memory; its longest pause. Prints tables."""

from __future__ import annotations

import argparse
import statistics
import sys
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING

from records import FRAME, LIFETIME, Swarms, make_store, reply_buffer
from rich.console import Console
from rich.table import Table

from common import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from shard.slice_store import SliceStore

ROUNDS = 10
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


def speed(torrents: int, peers: int) -> tuple[str, ...]:
    """Nanoseconds an announce of a known peer, the answers checked against the sizes of the swarms."""
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
    middle = statistics.median(rounds)
    share = listed / expected
    return (
        f"{torrents:,}", f"{total:,}", f"{middle:.0f}", f"{(max(rounds) - min(rounds)) / 2:.0f}",
        f"{1e3 / middle:.2f}", f"{100 * share:.1f} %", "" if share >= 0.95 else "INVALID: too few peers",
    )  # fmt: skip


def print_speed() -> bool:
    """Whether the answers were right."""
    table = Table(title=f"a shard alone, frames of {FRAME} announces, 50 peers wanted, {ROUNDS} rounds")
    for name in ("torrents", "peers", "ns/announce", "+-", "M/s a core", "peers, of the model's", ""):
        table.add_column(name, justify="right")
    rows = [speed(2_000, 50_000), speed(20_000, 1_000_000), speed(200_000, 3_600_000)]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    return not any(row[-1] for row in rows)


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
    """The longest run of a kind of step, by the thread's processor time, and by the wall."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[int, int, int]] = {}

    def run(self, name: str, call: Callable[[], int]) -> int:
        """Call and note."""
        wall, cpu = perf_counter_ns(), thread_time_ns()
        result = call()
        cpu, wall = thread_time_ns() - cpu, perf_counter_ns() - wall
        count, longest, by_wall = self.steps.get(name, (0, 0, 0))
        self.steps[name] = (count + 1, max(longest, cpu), max(by_wall, wall))
        return result


def print_pauses() -> bool:
    """Whether no step of a shard with 5 M peers, 500,000 of them in one swarm, took over 2 ms of processor time."""
    swarms, out = Swarms(100_000, 4_500_000), reply_buffer()
    swarms.sizes[0] = 500_000
    store, longest = make_store(4 << 30), Longest()
    for one in swarms.frames_of(swarms.all_peers()):
        longest.run(f"announce, {FRAME} new peers", lambda one=one: store.answer(one, out, 1, 1))
    dump_all(store, longest)
    target = store.rounds() + 1
    while store.rounds() < target:
        longest.run("sweep, nobody expires", lambda: store.sweep(2, 20_000))
    half = [swarms.pick() for _ in range(500_000)] + [(0, peer) for peer in range(0, 500_000, 2)]
    for one in swarms.frames_of(half):
        longest.run(f"announce, {FRAME} known peers", lambda one=one: store.answer(one, out, 2000, 1))
    for now in (LIFETIME + 10, LIFETIME + 2010):
        target = store.rounds() + 2
        while store.rounds() < target:
            longest.run("sweep, most expire", lambda now=now: store.sweep(now, 20_000))
    return show_pauses(longest, sum(swarms.sizes))


def dump_all(store: SliceStore, longest: Longest) -> None:
    """Dump every slice into another store."""
    other, chunk = make_store(4 << 30), bytearray(frames.CHUNK)
    for slice_id in range(1024):
        cursor = bytearray(frames.CURSOR)
        while cursor[23] != 2:
            length = longest.run("dump, 64 KiB", lambda s=slice_id, c=cursor: store.dump(s, c, chunk, 1))
            part = bytes(chunk[:length])
            longest.run("load, 64 KiB", lambda s=slice_id, p=part: other.load(s, p, 1))


def show_pauses(longest: Longest, peers: int) -> bool:
    """Print the table; whether all is within the bound."""
    table = Table(title=f"longest steps with {peers:,} peers, 500,000 of them in one swarm")
    for name in ("step", "steps", "longest, CPU ms", "wall ms"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for name, (count, cpu, wall) in longest.steps.items():
        table.add_row(name, f"{count:,}", f"{cpu / 1e6:.2f}", f"{wall / 1e6:.2f}")
    console.print(table)
    return all(cpu <= LONGEST for _, cpu, _ in longest.steps.values())


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
