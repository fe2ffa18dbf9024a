"""`make bench ARGS="growth"`: what an announce costs as the cluster grows, and which simple law foretells it.

Two laws for the processor time of all processes, the same at every size:

    two terms     a x announces + b x frames
    three terms   a x announces + b x frames + c x turns

A turn is a batch of datagrams that a gateway took in one pass of its loop; a frame carries all records that it has for
a shard in that turn. So frames an announce grow with the shards and fall with the load, turns fall with the load and
grow with the gateways that share it; what a cluster costs beside that would be a price of size.

The terms come from least squares of the relative deviations over all points. A point is a size and a window (requests
in flight), its values medians of its rounds. Two terms are fitted for each size alone too. Three cannot be: at 1 x 1
turns and frames are nearly the same. Instead each size has its factor, the median of measured over foretold by the
three terms of all; it must be within 10 %, or the command fails.

All clusters stay up, linked by tcp, and take turns under short loads from many sockets, which the system spreads over
the gateways. Announces, frames and turns are the gateways' own counts. Periodic work (pings, sweeps) goes on without
announces too: it is measured first, printed, and taken off by the time that a load took.

`--points FILE` keeps every sample, `--refit FILE` prints and draws from that without measuring.
"""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from loadtests import clusters
from loadtests.clusters import Run, Shape, Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (4, 2), (4, 8)]  # gateways, shards
WINDOWS = [16, 64, 256, 1024, 4096]
SOURCES = 64
FILL = 400_000
FIRST_PORT, PORTS = 8100, 100
IDLE = 3.0  # seconds in which periodic work is measured
ALLOWED = 0.10  # deviation of a size's factor from 1, and of its a and b from those of all
UNTOLD = "too few points, or too much alike, to tell the terms of the law"
console = Console(width=120)


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One load: microseconds an announce, of gateways and shards alone too; frames and turns an announce."""

    cost: Annotated[float, msgspec.Meta(gt=0)]
    gateways: float
    shards: float
    frames: Annotated[float, msgspec.Meta(gt=0)]
    turns: Annotated[float, msgspec.Meta(gt=0)]


class Size(msgspec.Struct, forbid_unknown_fields=True):
    """A cluster that was measured, with its samples by window; what `--points` keeps."""

    gateways: int
    shards: int
    idle: dict[str, float]  # share of a core that periodic work takes, by role
    samples: dict[int, Annotated[list[Sample], msgspec.Meta(min_length=1)]]
    wrong: str = ""  # why it does not count

    def __str__(self) -> str:
        return f"{self.gateways} x {self.shards}"

    def points(self) -> list[Point]:
        """The medians of its rounds."""
        rows = {window: map(msgspec.structs.astuple, samples) for window, samples in self.samples.items()}
        return [Point(str(self), window, Sample(*map(median, zip(*row, strict=True)))) for window, row in rows.items()]


class Point(NamedTuple):
    """A size under a window."""

    size: str
    window: int
    sample: Sample


# Laws


class Law(NamedTuple):
    """Microseconds an announce, a frame and a turn."""

    a: float
    b: float
    c: float = 0.0

    def __str__(self) -> str:
        turns = f" + {self.c:.1f} a turn" if self.c else ""
        return f"{self.a:.2f} us an announce + {self.b:.1f} a frame{turns}"

    def foretell(self, sample: Sample) -> float:
        """Microseconds an announce that needs so many frames and turns."""
        return self.a + self.b * sample.frames + self.c * sample.turns

    def off(self, sample: Sample) -> float:
        """Measured over foretold, less 1."""
        return sample.cost / self.foretell(sample) - 1


class Laws(NamedTuple):
    """Both laws of all points, and that of two terms for each size alone."""

    two: Law
    three: Law
    alone: list[Law]


class Deviations(NamedTuple):
    """Of points from a law: the mean of what they are off by, either way; the worst point; measured over foretold."""

    mean: float
    worst: Point
    factor: float  # median


def find_laws(sizes: Sequence[Size]) -> Laws:
    """The laws that the sizes obey best. Raises ValueError if there are too few points, or too much alike."""
    points = [point for size in sizes for point in size.points()]
    return Laws(fit(points, 2), fit(points, 3), [fit(size.points(), 2) for size in sizes])


def fit(points: Sequence[Point], terms: int) -> Law:
    """The law of so many terms that has the least squares of foretold / measured - 1. Raises ValueError."""
    if len(points) < terms:
        raise ValueError(UNTOLD)
    rows = []
    for _, _, sample in points:
        values = [Fraction(value) for value in (1.0, sample.frames, sample.turns)[:terms]]
        rows.append([value / Fraction(sample.cost) for value in values])
    return Law(*map(float, solve(rows)))


def solve(rows: Sequence[Sequence[Fraction]]) -> list[Fraction]:
    """The x that makes every row times x come closest to 1: the normal equations, solved without any rounding.

    Turns are nearly frames in many points. Floats would lose half of their digits by the squares, fractions lose none.
    Raises ValueError if the rows leave x open.
    """
    size = len(rows[0])
    left = [[sum((row[i] * row[j] for row in rows), Fraction()) for j in range(size)] for i in range(size)]
    matrix = [[*equation, sum((row[i] for row in rows), Fraction())] for i, equation in enumerate(left)]
    for i in range(size):
        pivot = matrix[i][i]  # never 0 but for rows that leave x open, as no sum of squares is negative
        if not pivot:
            raise ValueError(UNTOLD)
        matrix[i] = [value / pivot for value in matrix[i]]
        for j in range(size):
            if j != i:
                matrix[j] = [x - matrix[j][i] * y for x, y in zip(matrix[j], matrix[i], strict=True)]
    return [equation[-1] for equation in matrix]


def deviations(points: Sequence[Point], law: Law) -> Deviations:
    """How far a law is from points."""
    off = [law.off(point.sample) for point in points]
    worst = max(points, key=lambda point: abs(law.off(point.sample)))
    return Deviations(mean(map(abs, off)), worst, 1 + median(off))


# Measuring


class Cluster:
    """A running cluster, and what is found of it."""

    def __init__(self, tracker: Tracker, shape: Shape) -> None:
        self.tracker = tracker
        self.size = Size(shape.gateways, shape.shards, {}, {})
        self.found: list[dict[str, float]] = []

    def prepare(self, folder: Path) -> None:
        """Fill it, and see what it costs when nobody asks."""
        clusters.run(folder, self.tracker, *self._load(WINDOWS[-1], "-F", FILL))
        self.size.idle = clusters.idle(self.tracker, IDLE)

    def measure(self, folder: Path, window: int, seconds: float, seed: int) -> None:
        """Take one sample."""
        before = self._counts()
        began = time.monotonic_ns()
        run = clusters.run(folder, self.tracker, *self._load(window, "-d", seconds, "-S", seed))
        took = time.monotonic_ns() - began
        self.found += run.found
        self.size.wrong = clusters.faults(self.found)
        counts = [after - was for after, was in zip(self._counts(), before, strict=True)]
        self.size.samples.setdefault(window, []).append(self._sample(run, took, *counts))

    def _load(self, window: int, *options: object) -> list[list[object]]:
        return [["-N", SOURCES, "-W", window, *options]]

    def _sample(self, run: Run, took: int, announces: float, frames: float, turns: float) -> Sample:
        cost = {role: (run.spent[role] - idle * took) / 1e3 / announces for role, idle in self.size.idle.items()}
        return Sample(sum(cost.values()), cost["gateway"], cost["shard"], frames / announces, turns / announces)

    def _counts(self) -> list[float]:
        names = 'shoal_answers_total{kind="announce"}', "shoal_link_frames_total{", "shoal_batch_datagrams_count"
        return [self.tracker.count(name) for name in names]


def start(stack: ExitStack, folder: Path, sizes: list[tuple[int, int]]) -> list[Cluster]:
    """Start a cluster of each size."""
    running = []
    for number, (gateways, shards) in enumerate(sizes):
        shape, port = Shape("tcp", gateways, shards), FIRST_PORT + PORTS * number
        tracker = stack.enter_context(clusters.shoal(folder, port, shape, f"{gateways} x {shards}"))
        running.append(Cluster(tracker, shape))
    return running


def measure(folder: Path, rounds: int, seconds: float) -> list[Size]:
    """Start all clusters, and load them in turns."""
    with ExitStack() as stack:
        running = start(stack, folder, SIZES)
        for cluster in running:
            cluster.prepare(folder)
        for number in range(rounds):
            for window in WINDOWS:
                for cluster in running:
                    cluster.measure(folder, window, seconds, number + 1)
    return [cluster.size for cluster in running]


def grow(folder: Path, rounds: int, seconds: float, points: Path | None, picture: Path | None) -> int:
    """Measure, keep the samples, print tables, draw; how many sizes are invalid or not foretold."""
    sizes = measure(folder, rounds, seconds)
    if points is not None:
        save(sizes, points)
        print(f"kept: {points}")
    return report(sizes, find_laws(sizes), picture)


# What is kept


def save(sizes: list[Size], file: Path) -> None:
    """Keep every sample as JSON."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(sizes), indent=1) + b"\n")


def read(name: str) -> list[Size]:
    """What was kept, for the command line. Raises ArgumentTypeError if no laws can be found from it."""
    try:
        sizes = msgspec.json.decode(Path(name).read_bytes(), type=list[Size])
        find_laws(sizes)
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        reason = error.strerror if isinstance(error, OSError) else error
        raise ArgumentTypeError(f"{name}: {reason}") from error
    return sizes


# Output


def report(sizes: list[Size], laws: Laws, picture: Path | None) -> int:
    """Print tables, draw; how many sizes are invalid or not foretold."""
    points = [point for size in sizes for point in size.points()]
    print_points(points, laws)
    missed = print_factors(sizes, laws.three)
    print_alone(sizes, laws)
    if picture is not None:
        draw(points, laws.three, picture)
    invalid = [f"{size}: {size.wrong}" for size in sizes if size.wrong]
    print(*invalid, sep="\n")
    return len(invalid) + missed


def print_points(points: list[Point], laws: Laws) -> None:
    """Every point, measured and as the laws have it."""
    table = Table(title="microseconds an announce, measured and foretold")
    titles = "frames", "turns", "gateways", "shards", "all", "two terms", "off by", "three", "off by"
    for title in ("size", "in flight", *titles):
        table.add_column(title, justify="right")
    for size, window, sample in points:
        measured = f"{sample.gateways:.2f}", f"{sample.shards:.2f}", f"{sample.cost:.2f}"
        foretold = [
            cell
            for law in (laws.two, laws.three)
            for cell in (f"{law.foretell(sample):.2f}", f"{law.off(sample):+.1%}")
        ]
        table.add_row(size, f"{window:,}", f"{sample.frames:.4f}", f"{sample.turns:.4f}", *measured, *foretold)
    console.print(table)
    for title, law in (("two terms", laws.two), ("three terms", laws.three)):
        all_off, worst, _ = deviations(points, law)
        print(
            f"{title}: {law}; points are off by {all_off:.1%} on average, "
            f"{law.off(worst.sample):+.1%} at most ({worst.size}, {worst.window:,} in flight)"
        )


def print_factors(sizes: list[Size], law: Law) -> int:
    """How far each size is from the common law of three terms; how many sizes it does not foretell."""
    table = Table(title="each size against the three terms of all")
    for title in ("gateways x shards", "off by, mean", "at most", "in flight there", "factor", "idle, of a core", ""):
        table.add_column(title, justify="right")
    missed = 0
    for size in sizes:
        found = deviations(size.points(), law)
        within = abs(found.factor - 1) <= ALLOWED
        missed += not within
        table.add_row(
            str(size), f"{found.mean:.1%}", f"{law.off(found.worst.sample):+.1%}", f"{found.worst.window:,}",
            f"{found.factor:.3f}", f"{sum(size.idle.values()):.2%}", "" if within else f"not within {ALLOWED:.0%}",
        )  # fmt: skip
    console.print(table)
    return missed


def print_alone(sizes: list[Size], laws: Laws) -> None:
    """a and b of each size alone, and whether they stay what they are for all."""
    table = Table(title="the two terms of each size alone, against those of all")
    for title in ("gateways x shards", "a", "off by", "b", "off by", ""):
        table.add_column(title, justify="right")
    for size, own in zip(sizes, laws.alone, strict=True):
        off = own.a / laws.two.a - 1, own.b / laws.two.b - 1
        table.add_row(
            str(size), f"{own.a:.2f}", f"{off[0]:+.1%}", f"{own.b:.1f}", f"{off[1]:+.1%}",
            "" if max(map(abs, off)) <= ALLOWED else f"not within {ALLOWED:.0%}",
        )  # fmt: skip
    console.print(table)


def draw(points: list[Point], law: Law, picture: Path) -> None:
    """Measured against foretold, a colour for each size."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 6.4), layout="constrained")
    for size in dict.fromkeys(point.size for point in points):
        own = [point.sample for point in points if point.size == size]
        axes.plot([law.foretell(sample) for sample in own], [sample.cost for sample in own], "o", label=size)
    most = 1.05 * max(max(point.sample.cost, law.foretell(point.sample)) for point in points)
    axes.plot([0, most], [0, most], color="grey", linewidth=1, label="as foretold")
    axes.fill_between([0, most], [0, 0.9 * most], [0, 1.1 * most], color="grey", alpha=0.15, label="within 10 %")
    axes.set(xlim=(0, most), ylim=(0, most), title="Processor time of the whole cluster, one core, tcp links")
    axes.set(xlabel=f"foretold: {law}", ylabel="measured, us an announce")
    axes.legend(title="gateways x shards")
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
    print(f"drawn: {picture}")
