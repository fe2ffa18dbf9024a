"""`make bench ARGS="growth"`: what an announce costs as the cluster grows, and whether a simple law foretells it.

The law: processor time of all processes = a x announces + b x frames, with the same a and b at every size. A frame
carries all records that a gateway has for a shard in one turn of its loop, so frames an announce grow with the shards
and fall with the load; what they cost beside that would be a price of size. a and b come from least squares of the
relative deviations, over all points and for each size alone; a point is a size and a window (requests in flight), its
values medians of its rounds.

All clusters stay up, linked by tcp, and take turns under short loads from many sockets, which the system spreads over
the gateways. Announces and frames are the gateways' own counts. Periodic work (pings, sweeps) goes on without announces
too: it is measured first, printed, and taken off by the time that a load took. Turns, printed beside, are batches of
datagrams that a gateway took: with several shards each needs several frames.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests import clusters
from loadtests.clusters import Run, Shape, Tracker

SIZES = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (4, 2), (4, 8)]  # gateways, shards
WINDOWS = [16, 64, 256, 1024, 4096]
SOURCES = 64
FILL = 400_000
FIRST_PORT, PORTS = 8100, 100
IDLE = 3.0  # seconds in which periodic work is measured
ALLOWED = 0.10  # deviation of a and b at a size from those of all
console = Console(width=120)


class Sample(NamedTuple):
    """One load: microseconds an announce, of gateways and shards alone too; frames and turns an announce."""

    cost: float
    gateways: float
    shards: float
    frames: float
    turns: float


class Point(NamedTuple):
    """A size under a window."""

    shape: Shape
    window: int
    sample: Sample


class Law(NamedTuple):
    """Microseconds an announce and a frame."""

    a: float
    b: float

    def predict(self, frames: float) -> float:
        """Microseconds an announce that needs so many frames."""
        return self.a + self.b * frames


def fit(points: list[Point]) -> Law:
    """The law that these points obey best: the least squares of predicted / measured - 1."""
    pairs = [(1 / sample.cost, sample.frames / sample.cost) for _, _, sample in points]
    uu, uv, vv = (sum(p[i] * p[j] for p in pairs) for i, j in ((0, 0), (0, 1), (1, 1)))
    u, v = (sum(p[i] for p in pairs) for i in (0, 1))
    determinant = uu * vv - uv * uv
    return Law((u * vv - v * uv) / determinant, (v * uu - u * uv) / determinant)


class Cluster:
    """A running cluster, and its samples by window."""

    def __init__(self, tracker: Tracker, shape: Shape) -> None:
        self.tracker = tracker
        self.shape = shape
        self.idle: dict[str, float] = {}  # share of a core that periodic work takes
        self.samples: dict[int, list[Sample]] = {}
        self.found: list[dict[str, float]] = []

    def prepare(self, folder: Path) -> None:
        """Fill it, and see what it costs when nobody asks."""
        clusters.run(folder, self.tracker, *self._load(WINDOWS[-1], "-F", FILL))
        before, began = self.tracker.spent(), time.monotonic_ns()
        time.sleep(IDLE)
        after, took = self.tracker.spent(), time.monotonic_ns() - began
        self.idle = {role: (after[role] - before[role]) / took for role in after}

    def measure(self, folder: Path, window: int, seconds: float, seed: int) -> None:
        """Take one sample."""
        before = self._counts()
        began = time.monotonic_ns()
        run = clusters.run(folder, self.tracker, *self._load(window, "-d", seconds, "-S", seed))
        took = time.monotonic_ns() - began
        self.found += run.found
        counts = [after - was for after, was in zip(self._counts(), before, strict=True)]
        self.samples.setdefault(window, []).append(self._sample(run, took, *counts))

    def points(self) -> list[Point]:
        """The medians of its rounds."""
        return [
            Point(self.shape, window, Sample(*(median(column) for column in zip(*samples, strict=True))))
            for window, samples in self.samples.items()
        ]

    def _load(self, window: int, *options: object) -> list[list[object]]:
        return [["-N", SOURCES, "-W", window, *options]]

    def _sample(self, run: Run, took: int, announces: float, frames: float, turns: float) -> Sample:
        cost = {role: (run.spent[role] - idle * took) / 1e3 / announces for role, idle in self.idle.items()}
        return Sample(sum(cost.values()), cost["gateway"], cost["shard"], frames / announces, turns / announces)

    def _counts(self) -> list[float]:
        names = 'shoal_answers_total{kind="announce"}', "shoal_link_frames_total{", "shoal_batch_datagrams_count"
        return [self.tracker.count(name) for name in names]


def start(stack: ExitStack, folder: Path, sizes: list[tuple[int, int]]) -> list[Cluster]:
    """Start a cluster of each size."""
    running = []
    for number, (gateways, shards) in enumerate(sizes):
        shape, port = Shape("tcp", gateways, shards), FIRST_PORT + PORTS * number
        file = clusters.write_config(folder / f"on{port}", port, shape)
        tracker = clusters.started(name(shape), port, clusters.shoal_command(file), shape)
        running.append(Cluster(stack.enter_context(tracker), shape))
    return running


def name(shape: Shape) -> str:
    """A size in words."""
    return f"{shape.gateways} x {shape.shards}"


def grow(folder: Path, rounds: int, seconds: float, picture: Path | None) -> int:
    """Measure, print tables, draw; how many clusters gave wrong answers, or too few."""
    with ExitStack() as stack:
        running = start(stack, folder, SIZES)
        for cluster in running:
            cluster.prepare(folder)
        for number in range(rounds):
            for window in WINDOWS:
                for cluster in running:
                    cluster.measure(folder, window, seconds, number + 1)
    points = [point for cluster in running for point in cluster.points()]
    law = fit(points)
    print_points(points, law)
    print_sizes(running, law)
    if picture is not None:
        draw(points, law, picture)
    invalid = [f"{name(cluster.shape)}: {fault}" for cluster in running if (fault := clusters.faults(cluster.found))]
    print(*invalid, sep="\n")
    return len(invalid)


def print_points(points: list[Point], law: Law) -> None:
    """Every point, measured and as the law has it."""
    table = Table(title=f"microseconds an announce; the law: {law.a:.2f} an announce + {law.b:.1f} a frame")
    for title in ("gateways x shards", "in flight", "frames", "turns", "gateways", "shards", "all", "law", "off by"):
        table.add_column(title, justify="right")
    for shape, window, sample in points:
        predicted = law.predict(sample.frames)
        table.add_row(
            name(shape), f"{window:,}", f"{sample.frames:.4f}", f"{sample.turns:.4f}",
            f"{sample.gateways:.2f}", f"{sample.shards:.2f}", f"{sample.cost:.2f}",
            f"{predicted:.2f}", f"{sample.cost / predicted - 1:+.1%}",
        )  # fmt: skip
    console.print(table)


def print_sizes(running: list[Cluster], law: Law) -> None:
    """a and b of each size alone, and whether they stay what they are for all."""
    table = Table(title="the law of each size alone, against that of all")
    for title in ("gateways x shards", "a", "off by", "b", "off by", "idle, of a core", ""):
        table.add_column(title, justify="right")
    for cluster in running:
        own = fit(cluster.points())
        off = own.a / law.a - 1, own.b / law.b - 1
        table.add_row(
            name(cluster.shape), f"{own.a:.2f}", f"{off[0]:+.1%}", f"{own.b:.1f}", f"{off[1]:+.1%}",
            f"{sum(cluster.idle.values()):.2%}", "" if max(map(abs, off)) <= ALLOWED else f"not within {ALLOWED:.0%}",
        )  # fmt: skip
    console.print(table)


def draw(points: list[Point], law: Law, picture: Path) -> None:
    """Measured against predicted, a colour for each size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 6.4), layout="constrained")
    for shape in dict.fromkeys(point.shape for point in points):
        own = [point.sample for point in points if point.shape == shape]
        axes.plot([law.predict(s.frames) for s in own], [s.cost for s in own], "o", label=name(shape))
    most = 1.05 * max(max(point.sample.cost, law.predict(point.sample.frames)) for point in points)
    axes.plot([0, most], [0, most], color="grey", linewidth=1, label="as foretold")
    axes.fill_between([0, most], [0, 0.9 * most], [0, 1.1 * most], color="grey", alpha=0.15, label="within 10 %")
    axes.set(xlim=(0, most), ylim=(0, most), title="Processor time of the whole cluster, one core, tcp links")
    axes.set(xlabel=f"foretold: {law.a:.2f} us an announce + {law.b:.1f} us a frame", ylabel="measured, us an announce")
    axes.legend(title="gateways x shards")
    figure.savefig(picture, dpi=100)
    print(f"drawn: {picture}")
