"""`make bench ARGS="move"`: a shard is added to a cluster with five million peers, under load.

Two shards are filled over UDP; then the file gets a third one, as an operator edits it, while announces come in an open
loop. The loads, a few seconds each, are the yardstick's: every answer is checked, latency counts from when a request
was due. The table has them one after the other: before the edit, while the new shard fills, while the others wait until
they may drop what it took over, and after. Everything runs on the machine's cores, the load on one of them.
"""

from __future__ import annotations

import json
import time
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.table import Table

from cluster import status
from common import config
from loadtests import clusters
from loadtests.clusters import Load, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadtests.clusters import Tracker

PORT = 11_700
TORRENTS = 650_000
FILL = 16_000_000
RATE = 20_000
BEFORE = AFTER = 3  # loads
LONGEST = 600.0  # seconds for all of it
WORDS = {
    "before": "before the edit",
    "fill": "the new shard fills",
    "wait": "until what moved is dropped",
    "after": "after",
}
console = Console(width=120)

Document = dict[str, Any]


class Sample(NamedTuple):
    """A load, and in which part of the move it began."""

    part: str
    found: dict[str, float]


def add_shard(file: Path, port: int) -> None:
    """What an operator does: one shard more, and a higher version."""
    document = json.loads(file.read_text())
    number = len(document["shards"])
    link = clusters.link_of(file.parent, port, "tcp", number)
    document["shards"].append({"name": f"s{number}", "memory": "1 GiB"} | link)
    document["version"] = document.get("version", 1) + 1
    file.write_text(json.dumps(document))


def look(file: Path) -> list[Document]:
    """What each shard of the file says of itself."""
    shards: list[Document] = status.look(config.load(file), None, 5.0)["shards"]
    return shards


def part_of(shards: Sequence[Document]) -> str:
    """How far a move has come, by the states of slices; the last shard is the new one."""
    slices = [shard.get("slices", {}) for shard in shards]
    if any(of.get("part") for of in slices) or not slices[-1].get("full"):
        return "fill"
    return "wait" if any(of.get("leaving") for of in slices) else "after"


def move(folder: Path, seconds: float, torrents: int = TORRENTS, fill: int = FILL, rate: int = RATE) -> int:
    """Measure and print; how many loads had wrong answers, or lost over one in a thousand."""
    shape = Shape("tcp", 1, 2)
    with clusters.shoal(folder, PORT, shape) as tracker:
        file = folder / f"on{PORT}" / "cluster.yaml"
        clusters.run(folder, tracker, ["-F", fill, "-T", torrents])
        held = look(file)
        options = ["-d", seconds, "-R", rate, "-T", torrents]
        samples = [Sample("before", Load(folder, PORT, *options, "-S", seed).result()) for seed in range(BEFORE)]
        add_shard(file, PORT)
        began = time.monotonic()
        times: dict[str, float] = {}
        while [sample.part for sample in samples].count("after") < AFTER:
            part = part_of(look(file))
            times.setdefault(part, time.monotonic() - began)
            samples.append(Sample(part, Load(folder, PORT, *options, "-S", len(samples)).result()))
            if time.monotonic() - began > LONGEST:
                raise RuntimeError(f"the move does not come to its end: {part_of(look(file))}")
        report(held, look(file), samples, times, longest(tracker), seconds)
    wrong = clusters.faults([sample.found for sample in samples])
    console.print(wrong or "every answer was right, and fewer than one in a thousand was lost")
    return int(bool(wrong))


def longest(tracker: Tracker) -> dict[str, float]:
    """Milliseconds of processor time of the longest steps of copying at all shards, by kind."""
    shape = tracker.shape
    assert shape is not None
    found: dict[str, float] = {}
    for number in range(shape.gateways, shape.gateways + shape.shards + 1):
        for line in tracker.metrics(number):
            if line.startswith("shoal_longest_copy_seconds{"):
                kind, _, value = line.partition('"')[2].partition('"} ')
                found[kind] = max(found.get(kind, 0.0), 1000 * float(value))
    return found


def report(
    before: Sequence[Document],
    after: Sequence[Document],
    samples: Sequence[Sample],
    times: dict[str, float],
    steps: dict[str, float],
    seconds: float,
) -> None:
    """Print what moved, how long it took, and what clients noticed."""
    peers = sum(shard["seeders"] + shard["leechers"] for shard in before)
    new = after[-1]
    copied = new["copies"]["counts"]
    console.print(
        f"{peers:,} peers in {sum(shard['torrents'] for shard in before):,} torrents; the new shard took "
        f"{new['slices']['full']} of 1,024 slices"
    )
    console.print(
        f"copied: {copied['merged']:,} peers, {copied['bytes'] / 2**20:,.0f} MiB in {copied['chunks']:,} chunks, "
        f"{copied['pulls']:,} pulls of which {copied['empty']:,} had no news"
    )
    console.print(
        f"filled {times['wait']:.0f} s after the edit; dropped by the others {times['after']:.0f} s after it "
        f"(to within a load, {seconds:g} s)"
    )
    for kind, value in sorted(steps.items()):
        console.print(f"longest step, {kind}: {value:.1f} ms of processor time")
    table = Table(box=None, pad_edge=False)
    for name in ("", "loads", "answers/s", "lost", "wrong", "p50 ms", "p99 ms", "longest p99 ms"):
        table.add_column(name, justify="left" if not name else "right")
    for part, words in WORDS.items():
        found = [sample.found for sample in samples if sample.part == part]
        if found:
            table.add_row(words, str(len(found)), *row(found))
    console.print(table)


def row(found: Sequence[dict[str, float]]) -> list[str]:
    """The cells of the loads of one part."""
    p99 = [each["p99_us"] / 1000 for each in found]
    return [
        f"{median(each['rps'] for each in found):,.0f}",
        f"{sum(each['lost'] for each in found):,.0f}",
        f"{sum(each[kind] for each in found for kind in clusters.WRONG):,.0f}",
        f"{median(each['p50_us'] for each in found) / 1000:.2f}",
        f"{median(p99):.1f}",
        f"{max(p99):.1f}",
    ]
