"""What compare.py found: rows that are judged, tables, the results file and the picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from loadtests import clusters

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matplotlib.axes import Axes
    from rich.console import Console

    from loadtests.clusters import Run

ENOUGH = 0.95  # of the peers that an answer could have


class Entry:
    """What was found of a tracker under one kind of load."""

    def __init__(self, name: str, judged: Iterable[str], ours: bool = False) -> None:
        self.name = name
        self.ours = ours
        self.judged = tuple(judged)  # kinds of wrong answers that make its figures invalid
        self.fault = ""  # what else does
        self.runs: list[Run] = []
        self.peers: float | None = None  # an answer, if udpload did not count them
        self.own: float | None = None  # share of the answers that list the asker, likewise

    @property
    def found(self) -> list[dict[str, float]]:
        """What the loads found."""
        return [run.found[0] for run in self.runs]

    def costs(self) -> list[float]:
        """Microseconds an answer, of each round."""
        return [run.microseconds() for run in self.runs]

    def listed(self) -> float | None:
        """Peers an answer."""
        if self.peers is None and self.runs and "peers_per_announce" in self.found[0]:
            return median(found["peers_per_announce"] for found in self.found)
        return self.peers

    def own_share(self) -> float | None:
        """Of the answers, how many list the asker."""
        if self.own is None and self.runs and "own" in self.found[0]:
            return self.total("own") / max(self.total("answers"), 1)
        return self.own

    def total(self, kind: str) -> float:
        """Of all rounds."""
        return sum(found.get(kind, 0) for found in self.found)

    def share(self, kind: str) -> float:
        """Of the requests."""
        return self.total(kind) / max(self.total("sent"), 1)

    def faults(self) -> list[str]:
        """What makes its figures invalid."""
        wrong = [f"{self.total(kind):,.0f} {kind}" for kind in self.judged if self.total(kind)]
        if self.fault:
            wrong.append(self.fault)
        elif not self.runs or not self.total("answers"):
            wrong.append("no answers")
        return wrong


class Contest(NamedTuple):
    """All trackers under one kind of load; the floor is the first."""

    title: str
    kind: str  # closed, open, kept, one-shot
    entries: list[Entry]

    @property
    def latency(self) -> bool:
        """Whether it is about that, rather than processor time."""
        return self.kind == "open"

    def entry(self, name: str) -> Entry:
        """A tracker's."""
        return next(entry for entry in self.entries if entry.name == name)

    def faults(self, entry: Entry) -> list[str]:
        """What makes an entry's row invalid."""
        wrong = entry.faults()
        if entry is self.entries[0]:
            return wrong
        if self.kind != "closed" and entry.share("lost") * clusters.LOST > 1:  # there the window may overrun a buffer
            wrong.append(f"{entry.share('lost'):.1%} lost")
        best = max((other.listed() or 0 for other in self.entries[1:]), default=0)
        if self.kind in {"closed", "open"} and entry.runs and (entry.listed() or 0) < ENOUGH * best:
            wrong.append(f"{entry.listed():.1f} peers an answer, another gave {best:.1f}")
        return wrong


# Telling

COST = ("", "us an answer", "of the floor", "quartiles", "answers a second", "peers", "own")
LATENCY = ("", "p50, us", "p99, us", "least p99", "us an answer", "of the floor", "peers")
HEADERS = {
    "closed": (*COST, "lost", ""), "open": (*LATENCY, "lost", ""),
    "kept": (*COST, "closed", ""), "one-shot": (*COST, "closed", ""),
}  # fmt: skip
# What trackers are compared by.
FIGURES = {"closed": (COST[1],), "open": ("p50", "p99", COST[1]), "kept": (COST[1],), "one-shot": (COST[1],)}


def rows(contest: Contest) -> list[list[str]]:
    """The table of a contest, as text; the last column says what is invalid."""
    return [row_of(contest, entry) for entry in contest.entries]


def row_of(contest: Contest, entry: Entry) -> list[str]:
    """One of them."""
    faults = contest.faults(entry)
    wrong = f"INVALID: {', '.join(faults)}" if faults else ""
    if not entry.runs:
        return [entry.name, *[""] * (len(COST)), wrong]
    low, ratio, high = ratios(contest, entry)
    cost, peers = f"{median(entry.costs()):.2f}", number(entry.listed(), ".1f")
    last = f"{entry.share(HEADERS[contest.kind][-2]):.2%}", wrong
    if contest.latency:
        p50, p99 = ([found[f"{share}_us"] for found in entry.found] for share in ("p50", "p99"))
        times = f"{median(p50):,.0f}", f"{median(p99):,.0f}", f"{min(p99):,.0f}"
        return [entry.name, *times, cost, f"{ratio:.2f}", peers, *last]
    rate = median(found["rps"] for found in entry.found)
    own = number(entry.own_share(), ".0%") if entry is not contest.entries[0] else ""
    return [entry.name, cost, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", f"{rate:,.0f}", peers, own, *last]


def number(value: float | None, form: str) -> str:
    """A value, if there is one."""
    return "" if value is None else format(value, form)


def ratios(contest: Contest, entry: Entry) -> tuple[float, float, float]:
    """Quartiles of what part of a tracker's cost the floor's of the same round was. Zeros if the floor failed."""
    pairs = zip(contest.entries[0].costs(), entry.costs(), strict=False)  # one that failed has fewer rounds
    found = [of / cost for of, cost in pairs if cost]
    return clusters.quartiles(found) if found else (0.0, 0.0, 0.0)


def ahead(contests: list[Contest]) -> list[str]:
    """For each figure of a contest and each of Shoal's rows, which other trackers did better, and by how much."""
    lines = [line for contest in contests for what in FIGURES[contest.kind] for line in ahead_by(contest, what)]
    return list(dict.fromkeys(lines))


def ahead_by(contest: Contest, what: str) -> list[str]:
    """The same for one figure."""
    lines = []
    values = {entry: figure(entry, what) for entry in contest.entries[1:] if not contest.faults(entry)}
    others = [(entry.name, value) for entry, value in values.items() if not entry.ours]
    for entry in contest.entries:
        if entry.ours and entry not in values:
            lines.append(f"{contest.title}: {entry.name} has no valid row")
        elif entry.ours:
            own = values[entry]
            better = [f"{name} ({value / own:.2f} of its)" for name, value in others if value < own]
            lines.append(f"{contest.title}, {what}, of {entry.name}: {', '.join(better) or 'none'}")
    return lines


def figure(entry: Entry, what: str) -> float:
    """One of FIGURES: less is better."""
    return median(entry.costs() if what == COST[1] else [found[f"{what}_us"] for found in entry.found])


def show(console: Console, contests: list[Contest], missing: list[str]) -> int:
    """Print tables; how many of Shoal's rows are invalid."""
    failed = 0
    for contest in contests:
        table = Table(title=contest.title, title_justify="left")
        for name in HEADERS[contest.kind][:-1]:
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        table.add_column("")
        for entry, row in zip(contest.entries, rows(contest), strict=True):
            table.add_row(*row)
            failed += entry.ours and bool(row[-1])
        console.print(table)
    for line in missing:
        console.print(f"not installed: {line}", highlight=False, markup=False)
    for line in ahead(contests):
        console.print(f"ahead: {line}", highlight=False, markup=False)
    return failed


def chapters(contests: list[Contest]) -> str:
    """All tables as Markdown, and who is ahead."""
    parts = ["## Ahead of Shoal", "\n".join(f"* {line}" for line in ahead(contests))]
    for contest in contests:
        parts += [f"## {contest.title}", markdown(HEADERS[contest.kind], rows(contest))]
    return "\n\n".join(parts)


def markdown(titles: Iterable[str], lines: list[list[str]]) -> str:
    """A table."""
    cells = [list(titles), *lines]
    shown = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in cells]
    return "\n".join([shown[0], "|" + "---|" * len(cells[0]), *shown[1:]])


# Drawing

OURS, THEIRS, INVALID = "#1f6fb4", "#9aa5b1", "#e3c9c4"
WIDEST = 5.0  # times the floor: bars of more are cut, so that the others stay readable


def draw(contests: list[Contest], picture: Path) -> None:
    """Bars of microseconds an answer, the floor a line."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = [contest for contest in contests if not contest.latency and contest.entries[0].runs]
    heights = [1 + len(contest.entries) for contest in shown]
    figure, panels = pyplot.subplots(
        len(shown),
        1,
        figsize=(8, 0.36 * sum(heights) + 0.6),
        layout="constrained",
        height_ratios=heights,
        squeeze=False,
    )
    for contest, (axes,) in zip(shown, panels, strict=True):
        draw_contest(contest, axes)
    panels[-1][0].set_xlabel("microseconds of processor time an answer, one core; less is better")
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
    print(f"drawn: {picture}")


def draw_contest(contest: Contest, axes: Axes) -> None:
    """One panel: the cheapest on top."""
    least = median(contest.entries[0].costs())
    widest = WIDEST * least
    entries = sorted((e for e in contest.entries[1:] if e.runs), key=lambda e: median(e.costs()), reverse=True)
    for place, entry in enumerate(entries):
        cost, invalid = median(entry.costs()), bool(contest.faults(entry))
        colour = INVALID if invalid else OURS if entry.ours else THEIRS
        axes.barh(place, min(cost, widest), color=colour, hatch="//" if cost > widest else "")
        text = f"{cost:.1f}" + (" (cut)" if cost > widest else "") + (" invalid" if invalid else "")
        axes.text(min(cost, widest) + 0.01 * widest, place, text, va="center", fontsize=9)
    axes.axvline(least, color="black", linestyle="--", linewidth=1)
    axes.text(1.03 * least, len(entries) - 0.45, f"floor {least:.1f}", va="bottom", fontsize=8)
    axes.set_yticks(range(len(entries)), [entry.name for entry in entries])
    axes.set(xlim=(0, 1.2 * widest), ylim=(-0.6, len(entries)))
    axes.set_title(contest.title, loc="left", fontsize=10)
