"""What `shoal status` and `shoal find` print: tables that mostly fit 80 columns, and lines for what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cluster.console import make_console
from common.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

Document = dict[str, Any]
BAD = "bold red"
NOTHING = "-"


def print_status(file: str, told: Document) -> None:
    """A cluster."""
    console = make_console()
    config, totals = told["config"], told["totals"]
    everyone = [*told["gateways"], *told["shards"]]
    nodes = counted(len(told["nodes"]), "node")
    say(console, f"{file}: version {config['version']}, {nodes}, {config['slices']} slices")
    what = [counted(totals[f"{thing}s"], thing) for thing in ("torrent", "seeder", "leecher")]
    say(console, f"{', '.join(what)}, {counted(totals['announces_per_s'], 'announce')} a second")
    if strays := totals["strays"]:  # in slices of others, who may have them too
        are = "is a stray" if strays == 1 else "are strays"
        say(
            console,
            f"{counted(strays, 'torrent')} of these {are}, not at the owner, and may count twice with all peers",
        )
    show(console, ("node", "process", "state", "up", "version", "boot", "config"), map(process_row, everyone))
    show(
        console,
        ("gateway", "answers/s", "refused/s", "connections", "shed"),
        (
            [one["name"], *numbers(one, "answers_per_s", "refusals_per_s", "connections", "shed")]
            for one in told["gateways"]
        ),
    )
    show(
        console,
        ("shard", "slices", "torrents", "seeders", "leechers", "announces/s", "memory"),
        map(shard_row, told["shards"]),
    )
    show(console, ("link of", "hears shards", "round trip", "unanswered", "heard by"), link_rows(told))
    say_more(console, [(line, "") for line in counters(told["shards"])])
    say_more(console, verdict(told))


def print_embedded(told: Document) -> None:
    """The embedded tracker."""
    console = make_console()
    say(console, f"embedded tracker, asked at {told['admin']}")
    if told["state"] != "silent":
        table = Table(box=None, pad_edge=False, show_header=False)
        taken = f"{used(told['memory'])} for peers, {mebibytes(told['resident'])} in all"
        for name, value in (
            ("state", told["state"]),
            ("up", uptime(told)),
            *((name, f"{told[name]:,}") for name in ("torrents", "seeders", "leechers", "announces", "refusals")),
            ("HTTP connections", f"{told['connections']:,}"),
            (
                "memory",
                taken,
            ),
        ):
            table.add_row(name, value)
        console.print(table)
    say_more(console, verdict(told))


def print_found(told: Document) -> None:
    """Where a torrent is."""
    console = make_console()
    say(console, f"{told['info_hash']}: slice {told['slice']} of {told['slices']}, owner {told['owner']}")
    rows = []
    for place, shard in enumerate(told["shards"], 1):
        state = (
            f"{shard['state']}{', stopping' if shard['stopping'] else ''}" if shard["heard"] else Text("silent", BAD)
        )
        counts = numbers(shard, "seeders", "leechers", "completed")
        rows.append([str(place), shard["name"], shard["node"] or NOTHING, shard["role"], state, *counts])
    show(console, ("order", "shard", "node", "role", "slice", "seeders", "leechers", "completed"), rows)
    say_more(console, [(f"{shard['name']}: {shard['why']}", BAD) for shard in told["shards"] if not shard["heard"]])


# Rows


def process_row(one: Document) -> list[str | Text]:
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


def shard_row(shard: Document) -> list[str | Text]:
    """What a shard has."""
    counts = numbers(shard, "torrents", "seeders", "leechers", "announces_per_s")
    if shard["state"] == "silent":
        return [shard["name"], NOTHING, *counts, NOTHING]
    slices = f"{shard['slices']['full']:,}" if "slices" in shard else NOTHING
    return [shard["name"], slices, *counts, used(shard["memory"]) if "memory" in shard else NOTHING]


def link_rows(told: Document) -> Iterable[list[str | Text]]:
    """Whom each process hears, and who hears it."""
    heard = [shard["name"] for shard in told["shards"] if shard["state"] != "silent"]
    for one in (*told["gateways"], *told["shards"]):
        links = one.get("links", ())
        if one["state"] in ("silent", "unknown") or not links:
            continue
        good = [link for link in links if not link["silent"] and not link["refused"]]
        by = f"{len(one['heard_by'])} of {len(heard)}" if "heard_by" in one else NOTHING
        slowest = f"{max(link['round_trip_ms'] for link in good)} ms" if good else NOTHING
        unanswered = f"{sum(link['unanswered'] for link in links):,}"
        many = Text(f"{len(good)} of {len(links)}", "" if len(good) == len(links) else BAD)
        yield [one["name"], many, slowest, unanswered, by]


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


def verdict(told: Document) -> list[tuple[str, str]]:
    """What is wrong, or that nothing is."""
    return [(line, BAD) for line in told["problems"]] or [("all is well", "")]


# Cells


def uptime(one: Document) -> str:
    """The two greatest units of it."""
    seconds = one.get("uptime_s")
    if seconds is None:
        return NOTHING
    for unit, smaller in ((86_400, 3600), (3600, 60)):
        if seconds >= unit:
            return format_duration(seconds - seconds % smaller)
    return format_duration(seconds)


def numbers(one: Document, *names: str) -> list[str | Text]:
    """Counts, with a mark for those that are not known."""
    return [f"{one[name]:,}" if name in one else NOTHING for name in names]


def mebibytes(size: int) -> str:
    """A size for who reads in passing."""
    number = size / 2**20
    return f"{number:,.{0 if number >= 10 else 1}f} MiB"


def used(memory: dict[str, int]) -> str:
    """What is taken, of what may be."""
    return f"{mebibytes(memory['taken'])} of {mebibytes(memory['ceiling'])}"


def counted(count: int, thing: str) -> str:
    """One thing, two things."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def show(console: Console, names: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """A table; columns of numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    found = list(rows)
    for at, column in enumerate(table.columns):
        cells = [str(row[at]) for row in found if at < len(row)]
        if cells and all(cell == NOTHING or cell[:1].isdigit() for cell in cells) and set(cells) != {NOTHING}:
            column.justify = "right"
    for row in found:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    if found:
        console.print()
        console.print(table)


def say_more(console: Console, lines: Sequence[tuple[str, str]]) -> None:
    """Lines apart from what is above."""
    if lines:
        console.print()
    for line, style in lines:
        say(console, line, style)


def say(console: Console, line: str, style: str = "") -> None:
    """A line, as long as it is."""
    console.print(Text(line, style), soft_wrap=True)
