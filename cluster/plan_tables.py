"""What `shoal plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from cluster import shown
from cluster.console import make_console
from cluster.shown import BAD, NOTHING, counted, numbers, size_of

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from cluster.shown import Cell

Document = dict[str, Any]


def print_plan(new: Path, old: Path | None, told: Document) -> None:
    """Shares, what is copied and dropped, and what to look out for."""
    has_replicas = told["after"]["members"] > 1 or (told["before"] or {"members": 1})["members"] > 1
    what = ("slices", "torrents", "peers")
    parts: list[RenderableType] = [
        Text(headline(new, old, told)),
        *shown.table(
            ("shard", "", "weight", "owns", *(("replicas",) if has_replicas else ()), "share", "fills", "drops"),
            [share_row(shard, told["slices"], has_replicas) for shard in told["shards"]],
        ),
        *shown.table(
            ("from", "to", *what, "about"),
            [[flow["from"], flow["to"], *numbers(flow, *what), size_of(flow["bytes"])] for flow in told["flows"]],
        ),
        *shown.lines(totals(told)),
        *shown.table(("dropped at", *what), [[each["shard"], *numbers(each, *what)] for each in told["drops"]]),
        *shown.table(
            ("memory of", "now", "then, about", "at most"),
            [memory_row(shard) for shard in told["shards"] if shard["fills"]],
        ),
        *shown.lines(told["notes"]),
        *shown.lines(told["problems"], BAD),
    ]
    shown.put(make_console(), parts)


def headline(new: Path, old: Path | None, told: Document) -> str:
    """Which files, versions and numbers of copies."""
    before, after = told["before"], told["after"]
    if before is None:
        return f"{new}: version {after['version']}, after what runs now; {copies(after)}"
    kept = copies(after) if before["members"] == after["members"] else f"{copies(before)}, then by {after['members']}"
    return f"{new}: version {after['version']}, after version {before['version']} ({old}); {kept}"


def copies(config: Document) -> str:
    """By how many shards each slice is kept."""
    return f"each slice is kept by {counted(config['members'], 'shard')}"


def share_row(shard: Document, slices: int, has_replicas: bool) -> list[Cell]:
    """What a shard has to hold, before and afterwards."""
    changes: dict[str, Cell] = {"added": "new", "removed": Text("out", BAD), "stays": ""}
    absent = {"weight": None, "owns": 0, "keeps": 0}
    unknown = {"weight": None, "owns": None, "keeps": None}
    before = shard["before"] or (absent if shard["change"] == "added" else unknown)
    pair = (before, shard["after"] or absent)
    return [
        shard["name"],
        changes[shard["change"]],
        arrow(*(f"{share['weight']:g}" for share in pair if share["weight"] is not None)),
        arrow(*(number(share["owns"]) for share in pair)),
        *((arrow(*(number(replicas(share)) for share in pair)),) if has_replicas else ()),
        arrow(*(NOTHING if share["keeps"] is None else f"{share['keeps'] / slices:.1%}" for share in pair)),
        f"{shard['fills']:,}",
        f"{shard['drops']:,}",
    ]


def arrow(*values: str) -> str:
    """A value that changes, or one that does not."""
    return " -> ".join(dict.fromkeys(values))


def number(value: int | None) -> str:
    """A count that may not be known."""
    return NOTHING if value is None else f"{value:,}"


def replicas(share: Document) -> int | None:
    """How many slices a shard holds that it does not own, if that is known."""
    return None if share["owns"] is None else share["keeps"] - share["owns"]


def totals(told: Document) -> list[str]:
    """What is moved in all."""
    total, mutual = told["total"], told["mutual"]
    if not told["flows"]:
        return ["nothing is copied from shard to shard"]
    what = ", ".join(counted(total[f"{thing}s"], thing) for thing in ("slice", "torrent", "peer"))
    lines = [f"in all {what}, about {size_of(total['bytes'])}"]
    if mutual["slices"]:
        many, most = counted(mutual["slices"], "slice"), size_of(mutual["bytes"])
        lines.append(f"{many} fill at several shards at once, which also ask each other: up to {most}")
    return lines


def memory_row(shard: Document) -> list[Cell]:
    """What a shard takes of its memory."""
    memory = shard["memory"]
    now = shown.mebibytes(memory["now"]) if memory["now"] else NOTHING
    then = Text(shown.mebibytes(memory["then"]), BAD if memory["then"] > memory["ceiling"] else "")
    return [shard["name"], now, then, shown.mebibytes(memory["ceiling"])]
