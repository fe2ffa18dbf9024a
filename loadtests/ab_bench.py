"""`make bench ARGS="ab"`: which of several trackers costs less, to a few percent.

Other guests of a shared machine disturb long measurements more than trackers differ. So all trackers stay up, short
loads take turns, and each round yields two ratios: of the floor's cost (calls of the system that do nothing else) to
the tracker's, and of the tracker's to that of the first variant. Their medians and quartiles are printed. A variant is

    embedded, ipc, tcp or curve, with GATEWAYSxSHARDS behind it if more than one of each: tcp2x3; and rN if there are
    replicas: tcp1x2r1
    the same of another checkout, with its kernels compiled: embedded@/path/to/checkout
    opentracker
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests import clusters
from loadtests.clusters import Run, Shape, Tracker

FIRST_PORT, PORTS = 7300, 100
FILL = 800_000
TORRENTS = 2000
console = Console(width=120)


class Variant(NamedTuple):
    """What is compared; `shape` is None for opentracker, `tree` for this checkout."""

    name: str
    shape: Shape | None
    tree: Path | None
    replicas: int = 0


def read_variants(text: str) -> list[Variant]:
    """Variants from the command line. Raises ArgumentTypeError."""
    return [read_variant(name) for name in text.split(",")]


def read_variant(name: str) -> Variant:
    """One of them."""
    if name == "opentracker":
        return Variant(name, None, None)
    kind, _, tree = name.partition("@")
    understood = re.fullmatch(r"(?:(embedded)|(ipc|tcp|curve)(?:([1-8])x([1-8])(?:r([1-7]))?)?)", kind)
    if understood is None or (tree and not Path(tree, "cluster").is_dir()):
        raise ArgumentTypeError(f"no variant: {name}")
    shape = Shape(understood[1] or understood[2], int(understood[3] or 1), int(understood[4] or 1))
    return Variant(name, shape, Path(tree).absolute() if tree else None, int(understood[5] or 0))


def start(stack: ExitStack, folder: Path, variant: Variant, port: int) -> Tracker:
    """Start a variant."""
    if variant.shape is None:
        return stack.enter_context(clusters.opentracker(folder, port, TORRENTS))
    settings = {"replicas": variant.replicas} if variant.replicas else {}  # other checkouts may not know it
    shoal = clusters.shoal(folder, port, variant.shape, variant.name, variant.tree, **settings)
    return stack.enter_context(shoal)


def compare(folder: Path, variants: list[Variant], rounds: int, seconds: float, window: int) -> int:
    """Print a table; how many rows are invalid."""
    with ExitStack() as stack:
        trackers = [stack.enter_context(clusters.floor(folder, FIRST_PORT))]
        for number, variant in enumerate(variants, 1):
            trackers.append(start(stack, folder, variant, FIRST_PORT + PORTS * number))
        for tracker in trackers[1:]:
            clusters.run(folder, tracker, ["-F", FILL])
        runs: list[list[Run]] = [[] for _ in trackers]
        for number in range(1, rounds + 1):
            for tracker, own in zip(trackers, runs, strict=True):
                own.append(clusters.run(folder, tracker, ["-d", seconds, "-W", window, "-S", number]))
    return show(trackers, runs)


def show(trackers: list[Tracker], runs: list[list[Run]]) -> int:
    """Print what was found; how many rows are invalid."""
    table = Table(title=f"{len(runs[0])} rounds; of the floor: medians and quartiles of the rounds' ratios")
    first = [run.microseconds() for run in runs[1]]
    for name in (
        "",
        "us an answer",
        "least",
        "of the floor",
        "quartiles",
        "of the first",
        "quartiles",
        "answers/s",
        "",
    ):
        table.add_column(name, justify="left" if not name else "right")
    failed = 0
    for tracker, own in zip(trackers, runs, strict=True):
        wrong = clusters.judge(tracker, [run.found[0] for run in own])
        failed += bool(wrong)
        costs = [run.microseconds() for run in own]
        low, middle, high = clusters.quartiles(clusters.of_floor(runs[0], own))
        less, equal, more = clusters.quartiles([cost / other for cost, other in zip(costs, first, strict=True)])
        rate = median(run.found[0]["rps"] for run in own)
        table.add_row(
            tracker.name, f"{median(costs):.2f}", f"{min(costs):.2f}", f"{middle:.3f}", f"{low:.3f} {high:.3f}",
            f"{equal:.3f}", f"{less:.3f} {more:.3f}", f"{rate:,.0f}", wrong,
        )  # fmt: skip
    console.print(table)
    return failed
