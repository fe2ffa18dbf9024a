"""What a load found, for people: for the terminal, on top of locust's HTML report, as Markdown, as a table's row."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

from loadtests.load.scenarios import LATE, Result, Scenario, Verdict, ms
from loadtests.load.trackers import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

COLUMNS = (
    "date", "scenario", "tracker", "scale", "workers", "answers/s", "p50 ms", "p99 ms", "lost", "wrong", "verdict",
    "commit", "machine",
)  # fmt: skip
HEADER = "# Results of load scenarios\n\nA row a run, by `make load`; [load.md](load.md) explains it.\n\n"


class Report(NamedTuple):
    """A run, and what became of it."""

    scenario: Scenario
    found: Mapping[str, Result]
    verdicts: Sequence[Verdict]
    tracker: str
    scale: float
    workers: int
    date: str
    commit: str
    machine: str
    command: str

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def verdict(self) -> str:
        """In a word."""
        return word(self.passed)


class Table(NamedTuple):
    """Some rows under a title; the first row names the columns."""

    title: str
    rows: Sequence[Sequence[str]]


def word(passed: bool) -> str:
    """passed or failed."""
    return "passed" if passed else "failed"


def tables(report: Report) -> list[Table]:
    """All that is reported."""
    about = [
        ("scenario", f"{report.scenario.name}: {report.scenario.says}"),
        ("tracker", report.tracker),
        ("scale, worker processes", f"{report.scale:g}, {report.workers or 'none, one process makes the load'}"),
        ("commit", report.commit),
        ("machine", report.machine),
        ("command", report.command),
        ("date", report.date),
    ]
    criteria = [(verdict.asked, verdict.figure, word(verdict.passed)) for verdict in report.verdicts]
    found = [
        Table("Load", [("", report.verdict), *about]),
        Table("Criteria", [("criterion", "found", ""), *criteria]),
        Table("Latency from when each request was due", latency_rows(report.found)),
        Table("Totals", total_rows(report.found)),
    ]
    told = (
        Table("Tracker's processes", process_rows(report.found)),
        Table("The load itself", load_rows(report.found)),
        Table("Not answered", refused_rows(report.found)),
    )
    return found + [table for table in told if len(table.rows) > 1]


def latency_rows(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Of each kind of request in each phase."""
    rows: list[tuple[str, ...]] = [("phase", "request", "answers", "p50 ms", "p99 ms")]
    for phase, result in found.items():
        for kind, got in result.latencies.items():
            name = "the load itself was late" if kind == LATE else kind
            rows.append((phase, name, f"{got.count:,}", ms(got.p50), ms(got.p99)))
    return rows


def total_rows(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Of each phase: what came, what did not, what was wrong."""
    heads = ("phase", "seconds", "due/s", "answered/s", "lost at first", "lost", "too late", "wrong")
    rows: list[tuple[str, ...]] = [heads]
    for phase, result in found.items():
        wrong = ", ".join(f"{many:,} {name}" for name, many in sorted(result.wrong.items())) or "none"
        numbers = (f"{result.seconds:.1f}", f"{result.rate:,.0f}", f"{result.goodput:,.0f}")
        late = result.totals.get("stray", 0)
        rows.append((phase, *numbers, f"{result.first_lost:,}", f"{result.lost:,}", f"{late:,}", wrong))
    return rows


def process_rows(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """Processor time and memory of the tracker's processes, by role, in each phase."""
    rows: list[tuple[str, ...]] = [("phase", "role", "us an answer", "share of a core", "resident MiB")]
    for phase, result in found.items():
        total = sum(result.processor.values())
        for role, seconds in [*sorted(result.processor.items()), ("all", total)] if total else []:
            resident = result.resident.get(role, 0) if role != "all" else sum(result.resident.values())
            cost = seconds * 1e6 / max(result.answers, 1)
            rows.append((phase, role, f"{cost:.2f}", f"{seconds / result.seconds:.1%}", f"{resident:.1f}"))
    return rows


def load_rows(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """What the load itself costs: answers that a core of workers would have made and checked."""
    rows: list[tuple[str, ...]] = [("phase", "us an answer", "share of a core", "answers/s a core")]
    for phase, result in found.items():
        if (own := result.load_processor) and result.answers:
            share = f"{own / result.seconds:.1%}"
            rows.append((phase, f"{own * 1e6 / result.answers:.2f}", share, f"{result.answers / own:,.0f}"))
    return rows


def refused_rows(found: Mapping[str, Result]) -> list[tuple[str, ...]]:
    """What the tracker says that it refused or shed."""
    rows: list[tuple[str, ...]] = [("phase", "how many", "what")]
    for phase, result in found.items():
        rows += [(phase, f"{many:,.0f}", REFUSALS.get(metric, metric)) for metric, many in result.refused.items()]
    return rows


def as_text(report: Report) -> str:
    """For a terminal: criteria with their figures, and the tracker's processes."""
    lines = [f"{word(verdict.passed)}: {verdict.asked}: {verdict.figure}" for verdict in report.verdicts]
    for _, role, cost, share, resident in process_rows({report.scenario.phase: main_result(report)})[1:]:
        lines.append(f"tracker, {role}: {cost} us an answer, {share} of a core, {resident} MiB resident")
    for _, cost, share, rate in load_rows({report.scenario.phase: main_result(report)})[1:]:
        lines.append(f"load: {cost} us an answer, {share} of a core: {rate} answers a second a core")
    for phase, many, what in refused_rows(report.found)[1:]:
        lines.append(f"tracker ({phase}): {many} {what}")
    return "\n".join([*lines, f"{report.scenario.name}, {report.tracker}: {report.verdict}"])


def main_result(report: Report) -> Result:
    """Of the phase that the table shows."""
    return report.found[report.scenario.phase]


def as_markdown(report: Report) -> str:
    """Our tables alone."""
    return "\n\n".join(f"## {table.title}\n\n{markdown_table(table.rows)}" for table in tables(report)) + "\n"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads."""
    return "\n".join([markdown_row(rows[0]), markdown_row(["---"] * len(rows[0])), *map(markdown_row, rows[1:])])


def markdown_row(cells: Iterable[str]) -> str:
    """One row."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_html(report: Report, of_locust: str) -> str:
    """locust's page, with our tables on top."""
    section = "".join(f"<h2>{html.escape(table.title)}</h2>{html_table(table.rows)}" for table in tables(report))
    style = (
        "<style>#load{font:15px sans-serif;margin:2em auto;max-width:1100px}#load td,#load th{padding:3px 12px 3px 0;"
        "text-align:left;border-bottom:1px solid #ddd}</style>"
    )
    head, body, rest = of_locust.partition("<body>")
    return f'{head}{body}<div id="load">{style}{section}</div>{rest}'


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads."""
    head, *others = rows
    lines = [html_row(head, "th"), *(html_row(row, "td") for row in others)]
    return f"<table>{''.join(lines)}</table>"


def html_row(cells: Iterable[str], tag: str) -> str:
    """One row."""
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def row(report: Report) -> tuple[str, ...]:
    """Of the results table."""
    result = main_result(report)
    return (
        report.date, report.scenario.name, report.tracker, f"{report.scale:g}", str(report.workers),
        f"{result.goodput:,.0f}", ms(result.announces.p50), ms(result.announces.p99),
        f"{result.lost:,}", f"{sum(result.wrong.values()):,}", report.verdict, report.commit, report.machine,
    )  # fmt: skip


def append(file: Path, report: Report) -> None:
    """Add a row to a results table, which is made if it is not there. Raises OSError."""
    text = file.read_text() if file.exists() else HEADER + markdown_table([COLUMNS]) + "\n"
    file.write_text(text + markdown_row(row(report)) + "\n")
