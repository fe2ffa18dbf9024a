"""`make bench ARGS="ladder"`: cost and latency from an idle tracker to a busy one, beside the floor and opentracker.

The floor is calls of the system that do nothing else, in batches. All trackers stay up and take turns in every round,
so noise falls on all alike, and ratios are of figures of the same round.

Closed loop: processor time an answer with 1, 16, 64 and 512 requests in flight. Up to 64 of them leave by one call,
so with 64 and fewer all are answered before the next leave.

Open loop: 1, 50 and 90 % of what each tracker, the floor too, answered in a second of that round with 512 in flight,
its capacity. Latency counts from when a request was due. It is compared with the floor's twice: with the same share of
its own capacity, and with as many requests a second. At 1 % every request leaves by a call of its own (-b 1), so the
generator makes no batches for the tracker; at 50 and 90 % what is due leaves together, as the generator looks at the
clock each 50 us only. Where that is as long as an answer takes, the latency is the generator's, the floor's too.

Periodic work (pings, sweeps) is in the figures, as it is there when nobody asks; its share of a core is printed. A
request counts as lost half a second after it was due, so none of the last half second is.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests import clusters
from loadtests.clusters import Run, Shape, Tracker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHAPES = [Shape("embedded"), Shape("tcp")]
FIRST_PORT, PORTS = 10700, 100
FILL = 800_000
TORRENTS = 2000
WINDOWS = 1, 16, 64, 512
SHARES = 0.01, 0.5, 0.9  # of capacity
LIGHT = 0.01  # up to this share every request leaves by a call of its own
IDLE = 1.5  # seconds in which periodic work is measured
HALF, ASKED = 0.5, {"p50": 2, "p99": 3}  # times the floor's, of the embedded tracker at half load
console = Console(width=140)


class Opened(NamedTuple):
    """A run in an open loop, the rate that it had, and the floor's run at the same rate."""

    rate: float
    own: Run
    floor: Run


class Subject:
    """A tracker, and its runs by round."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.idle = 0.0  # share of a core
        self.closed: dict[int, list[Run]] = {window: [] for window in WINDOWS}
        self.opened: dict[float, list[Opened]] = {share: [] for share in SHARES}

    def prepare(self, folder: Path) -> None:
        """Fill it, and see what it costs when nobody asks."""
        clusters.run(folder, self.tracker, ["-F", FILL])
        self.idle = sum(clusters.idle(self.tracker, IDLE).values())

    def close(self, folder: Path, window: int, seconds: float, seed: int) -> None:
        """Take one sample with so many requests in flight."""
        options = ["-d", seconds, "-W", window, "-S", seed]
        self.closed[window].append(clusters.run(folder, self.tracker, options))

    def open(self, folder: Path, share: float, seconds: float, seed: int, floor: Tracker) -> None:
        """Take one sample at a share of the capacity that this round found, and one of the floor at the same rate."""
        rate = share * self.closed[WINDOWS[-1]][-1].found[0]["rps"]
        options = ["-d", seconds, "-S", seed, *rate_options(share, rate)]
        own = clusters.run(folder, self.tracker, options)
        beside = own if self.tracker is floor else clusters.run(folder, floor, options)
        self.opened[share].append(Opened(rate, own, beside))

    def own(self, share: float) -> list[Run]:
        """Its runs at a share of its capacity."""
        return [opened.own for opened in self.opened[share]]


def rate_options(share: float, rate: float) -> list[object]:
    """udpload's options of an open loop."""
    return ["-R", f"{rate:.0f}", *(["-b", 1] if share <= LIGHT else [])]


def times(own: Sequence[Run], floor: Sequence[Run], figure: str) -> float:
    """How many times the floor's a latency is: the median of the rounds' ratios. `figure`: p50 or p99."""
    key = f"{figure}_us"
    return median(run.found[0][key] / least.found[0][key] for run, least in zip(own, floor, strict=True))


def middle(runs: Sequence[Run], key: str) -> float:
    """The median of a figure of udpload's."""
    return median(run.found[0][key] for run in runs)


def lost(runs: Sequence[Run]) -> float:
    """The share of requests that got no answer, of all rounds."""
    return sum(run.found[0]["lost"] for run in runs) / sum(run.found[0]["sent"] for run in runs)


# Measuring


def start(stack: ExitStack, folder: Path) -> list[Subject]:
    """Start the floor and the trackers, and fill them."""
    trackers = [stack.enter_context(clusters.floor(folder, FIRST_PORT))]
    for number, shape in enumerate(SHAPES, 1):
        trackers.append(stack.enter_context(clusters.shoal(folder, FIRST_PORT + PORTS * number, shape)))
    if clusters.has_opentracker():
        port = FIRST_PORT + PORTS * len(trackers)
        trackers.append(stack.enter_context(clusters.opentracker(folder, port, TORRENTS)))
    subjects = [Subject(tracker) for tracker in trackers]
    for subject in subjects[1:]:
        subject.prepare(folder)
    return subjects


def climb(folder: Path, rounds: int, seconds: float) -> int:
    """Measure and print tables; closed loops last half as long. How many rows of Shoal or the floor are invalid."""
    with ExitStack() as stack:
        subjects = start(stack, folder)
        floor = subjects[0].tracker
        for seed in range(1, rounds + 1):
            for window in WINDOWS:
                for subject in subjects:
                    subject.close(folder, window, seconds / 2, seed)
            for share in SHARES:
                for subject in subjects:
                    subject.open(folder, share, seconds, seed, floor)
    failed = show_closed(subjects)
    failed += sum(show_opened(subjects, share) for share in SHARES)
    print_asked(subjects)
    return failed


# Output


def show_closed(subjects: list[Subject]) -> int:
    """Print the cost by requests in flight; how many rows of Shoal or the floor are invalid."""
    table = Table(title="closed loop: processor time an answer; medians and quartiles, ratios of the same round")
    titles = "in flight", "", "us an answer", "quartiles", "of the floor", "quartiles", "answers/s", "idle, of a core"
    for title in (*titles, ""):
        table.add_column(title, justify="right" if title else "left")
    failed = 0
    floor = subjects[0]
    for window in WINDOWS:
        for subject in subjects:
            runs = subject.closed[window]
            wrong = judge(subject.tracker, runs)
            failed += bool(wrong) and counts(subject.tracker)
            low, cost, high = clusters.quartiles([run.microseconds() for run in runs])
            least, ratio, most = clusters.quartiles(clusters.of_floor(floor.closed[window], runs))
            table.add_row(
                f"{window}", subject.tracker.name, f"{cost:.2f}", f"{low:.2f} {high:.2f}", f"{ratio:.3f}",
                f"{least:.3f} {most:.3f}", f"{middle(runs, 'rps'):,.0f}", f"{subject.idle:.2%}", wrong,
            )  # fmt: skip
        table.add_section()
    console.print(table)
    return failed


def show_opened(subjects: list[Subject], share: float) -> int:
    """Print cost and latency at a share of capacity; how many rows of Shoal or the floor are invalid."""
    one = ", each by a call of its own" if share <= LIGHT else ""
    table = Table(title=f"open loop: {share:.0%} of its own capacity{one}; p50 and p99 in us, and times the floor's")
    shared, equal = f"at its {share:.0%}", "same rate"
    titles = "requests/s", "us an answer", "p50", "p99", "lost", *(f"{p} {to}" for to in (shared, equal) for p in ASKED)
    table.add_column("", min_width=max(len(subject.tracker.name) for subject in subjects))
    for title in (*titles, ""):
        table.add_column(title, justify="right" if title else "left")
    failed = 0
    floor = subjects[0].own(share)
    for subject in subjects:
        runs, rounds = subject.own(share), subject.opened[share]
        wrong = judge(subject.tracker, runs)
        failed += bool(wrong) and counts(subject.tracker)
        ratios = [times(runs, other, p) for other in (floor, [opened.floor for opened in rounds]) for p in ASKED]
        table.add_row(
            subject.tracker.name, f"{median(opened.rate for opened in rounds):,.0f}",
            f"{median(run.microseconds() for run in runs):.2f}", f"{middle(runs, 'p50_us'):,.0f}",
            f"{middle(runs, 'p99_us'):,.0f}", f"{lost(runs):.3%}", *(f"{ratio:.2f}" for ratio in ratios), wrong,
        )  # fmt: skip
    console.print(table)
    return failed


def judge(tracker: Tracker, runs: Sequence[Run]) -> str:
    """What makes a row invalid."""
    return clusters.judge(tracker, [run.found[0] for run in runs])


def counts(tracker: Tracker) -> bool:
    """Whether an invalid row is a failure: what opentracker loses or gets wrong is printed only."""
    return tracker.name != clusters.OPENTRACKER


def print_asked(subjects: list[Subject]) -> None:
    """What is asked of the embedded tracker at half load beside what it got."""
    floor, embedded = subjects[:2]
    own = embedded.own(HALF)
    for where, other in (
        ("half load", floor.own(HALF)),
        ("the same rate", [opened.floor for opened in embedded.opened[HALF]]),
    ):
        found = ", ".join(f"{p} {times(own, other, p):.2f} times, asked for: at most {ASKED[p]}" for p in ASKED)
        print(f"{embedded.tracker.name} at half load against the floor at {where}: {found}")
