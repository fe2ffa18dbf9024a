"""What looks at a cluster are shown as: lines and tables, printed once or drawn again and again, and their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from common.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

Document = dict[str, Any]
Cell = str | Text
BAD = "bold red"
NOTHING = "-"
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def put(console: Console, parts: Iterable[RenderableType]) -> None:
    """Print parts; a line is as long as it is."""
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def table(names: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[RenderableType]:
    """A table below an empty line, its columns of numbers to the right; nothing if it has no rows."""
    found = list(rows)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(names):
        cells = {str(row[at]) for row in found}
        numeric = all(cell == NOTHING or cell[:1].isdigit() for cell in cells) and cells != {NOTHING}
        made.add_column(name, overflow="fold", justify="right" if numeric else "left")
    for row in found:
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return [Text(""), made] if found else []


def lines(several: Sequence[str], style: str = "") -> list[RenderableType]:
    """Lines below an empty one."""
    return [Text(""), *(Text(line, style) for line in several)] if several else []


# Cells


def numbers(one: Document, *names: str) -> list[Cell]:
    """Counts, with a mark for those that are not known."""
    return [f"{one[name]:,}" if name in one else NOTHING for name in names]


def uptime(one: Document) -> str:
    """The two greatest units of it."""
    seconds = one.get("uptime_s")
    if seconds is None:
        return NOTHING
    for unit, smaller in ((86_400, 3600), (3600, 60)):
        if seconds >= unit:
            return format_duration(seconds - seconds % smaller)
    return format_duration(seconds)


def mebibytes(size: float) -> str:
    """A size for who reads in passing."""
    number = size / 2**20
    return f"{number:,.{0 if number >= 10 else 1}f} MiB"


def size_of(size: float) -> str:
    """A size in the unit that suits it."""
    for least, unit in UNITS:
        if size >= least:
            number = size / least
            return f"{number:,.{0 if number >= 10 else 1}f} {unit}"
    return f"{round(size):,} B"


def used(memory: dict[str, int]) -> str:
    """What is taken, of what may be."""
    return f"{mebibytes(memory['taken'])} of {mebibytes(memory['ceiling'])}"


def slices_of(shard: Document) -> str:
    """How many slices a shard has, by what it has of them."""
    if "slices" not in shard:
        return NOTHING
    slices = shard["slices"]
    told = [f"{slices[state]:,} {state}" for state in ("full", "part", "leaving") if slices[state]]
    return f"{slices['full']:,}" if told in ([], [f"{slices['full']:,} full"]) else ", ".join(told)


def good_links(one: Document) -> list[Document]:
    """A process's links to shards that it hears."""
    return [link for link in one.get("links", ()) if not link["silent"] and not link["refused"]]


def round_trip(one: Document) -> str:
    """The longest of these links."""
    trips = [link["round_trip_ms"] for link in good_links(one)]
    return f"{max(trips)} ms" if trips else NOTHING


def counted(count: int, thing: str) -> str:
    """One thing, two things."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
