"""What `shoal status` and `shoal find` print: tables that mostly fit 80 columns, and lines for what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cluster import shown
from cluster.console import make_console
from cluster.shown import BAD, NOTHING, counted, mebibytes, numbers, slices_of, uptime, used

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from cluster.shown import Cell

Document = dict[str, Any]


def print_status(file: str, told: Document) -> None:
    """A cluster."""
    shown.put(make_console(), status_parts(file, told))


def status_parts(file: str, told: Document) -> list[RenderableType]:
    """A cluster."""
    return [*head_lines(file, told), *figures_of(told), *shown.lines(told["moving"]), *verdict(told)]


def head_lines(file: str, told: Document) -> list[RenderableType]:
    """Which cluster it is, and how much it has."""
    config, totals = told["config"], told["totals"]
    nodes = counted(len(told["nodes"]), "node")
    what = [counted(totals[f"{thing}s"], thing) for thing in ("torrent", "seeder", "leecher")]
    lines = [
        f"{file}: version {config['version']}, {nodes}, {config['slices']} slices",
        f"{', '.join(what)}, {counted(totals['announces_per_s'], 'announce')} a second",
    ]
    if many := totals["elsewhere"]:
        lines.append(f"{counted(many, 'torrent')} at shards that should not keep {'it' if many == 1 else 'them'}")
    return [Text(line) for line in lines]


def figures_of(told: Document) -> list[RenderableType]:
    """The tables, and lines for what was refused and dropped."""
    everyone = [*told["gateways"], *told["shards"]]
    return [
        *shown.table(("node", "process", "state", "up", "version", "boot", "config"), map(process_row, everyone)),
        *shown.table(
            ("gateway", "answers/s", "refused/s", "connections", "shed"),
            (
                [one["name"], *numbers(one, "answers_per_s", "refusals_per_s", "connections", "shed")]
                for one in told["gateways"]
            ),
        ),
        *shown.table(
            ("shard", "slices", "torrents", "seeders", "leechers", "announces/s", "memory"),
            map(shard_row, told["shards"]),
        ),
        *shown.table(("link of", "hears shards", "round trip", "unanswered", "heard by"), link_rows(told)),
        *shown.lines(list(counters(told["shards"]))),
    ]


def print_embedded(told: Document) -> None:
    """The embedded tracker."""
    shown.put(make_console(), embedded_parts(told))


def embedded_parts(told: Document) -> list[RenderableType]:
    """The embedded tracker."""
    parts: list[RenderableType] = [Text(f"embedded tracker, asked at {told['admin']}")]
    if told["state"] != "silent":
        table = Table(box=None, pad_edge=False, show_header=False)
        taken = f"{used(told['memory'])} for peers, {mebibytes(told['resident'])} in all"
        for name, value in (
            ("state", told["state"]),
            ("up", uptime(told)),
            *((name, f"{told[name]:,}") for name in ("torrents", "seeders", "leechers", "announces", "refusals")),
            ("HTTP connections", f"{told['connections']:,}"),
            ("memory", taken),
        ):
            table.add_row(name, value)
        parts.append(table)
    return parts + verdict(told)


def print_found(told: Document) -> None:
    """Where a torrent is."""
    rows = []
    for place, shard in enumerate(told["shards"], 1):
        state = (
            f"{shard['state']}{', stopping' if shard['stopping'] else ''}" if shard["heard"] else Text("silent", BAD)
        )
        counts = numbers(shard, "seeders", "leechers", "completed")
        rows.append([str(place), shard["name"], shard["node"] or NOTHING, shard["role"], state, *counts])
    head = f"{told['info_hash']}: slice {told['slice']} of {told['slices']}, owner {told['owner']}"
    silent = [f"{shard['name']}: {shard['why']}" for shard in told["shards"] if not shard["heard"]]
    names = ("order", "shard", "node", "role", "slice", "seeders", "leechers", "completed")
    shown.put(make_console(), [Text(head), *shown.table(names, rows), *shown.lines(silent, BAD)])


# Rows


def process_row(one: Document) -> list[Cell]:
    """Who it is, how, and since when."""
    style = "" if one["state"] == "up" else BAD
    config = f"{one.get('config_version', NOTHING)}"
    return [
        one["node"] or NOTHING,
        one["name"],
        Text(one["state"], style),
        uptime(one),
        str(one.get("version", NOTHING)),
        str(one.get("boot", NOTHING))[:8],
        config,
    ]


def shard_row(shard: Document) -> list[Cell]:
    """What a shard has."""
    counts = numbers(shard, "torrents", "seeders", "leechers", "announces_per_s")
    if shard["state"] == "silent":
        return [shard["name"], NOTHING, *counts, NOTHING]
    return [shard["name"], slices_of(shard), *counts, used(shard["memory"]) if "memory" in shard else NOTHING]


def link_rows(told: Document) -> Iterable[list[Cell]]:
    """Whom each process hears, and who hears it."""
    heard = [shard["name"] for shard in told["shards"] if shard["state"] != "silent"]
    for one in (*told["gateways"], *told["shards"]):
        links = one.get("links", ())
        if one["state"] in ("silent", "unknown") or not links:
            continue
        good = shown.good_links(one)
        by = f"{len(one['heard_by'])} of {len(heard)}" if "heard_by" in one else NOTHING
        unanswered = f"{sum(link['unanswered'] for link in links):,}"
        many = Text(f"{len(good)} of {len(links)}", "" if len(good) == len(links) else BAD)
        yield [one["name"], many, shown.round_trip(one), unanswered, by]


def counters(shards: Sequence[Document]) -> Iterable[str]:
    """What shards refused, dropped and left out, if they did."""
    for shard in shards:
        if unlisted := shard.get("unlisted"):
            yield f"{shard['name']}: {unlisted:,} that ping it are not listed, as they are too many or say too much"
        for name, what in (("refused", "strangers refused"), ("dropped", "frames dropped")):
            counts = {reason: count for reason, count in shard.get(name, {}).items() if count}
            if counts:
                reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts.items())
                yield f"{shard['name']}: {what}: {reasons}"


def verdict(told: Document) -> list[RenderableType]:
    """What is wrong, or that nothing is."""
    return shown.lines(told["problems"], BAD) or shown.lines(["all is well"])
