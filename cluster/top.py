"""`shoal top`: what a cluster does at present, by the difference between two looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cluster import shown, status_tables, watching
from cluster.live import Display
from cluster.shown import NOTHING, counted, numbers, size_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cluster.followed import Followed
    from cluster.shown import Cell

Document = dict[str, Any]


def run(followed: Followed, node: str | None, timeout: float, interval: float, *, once: bool) -> None:
    """Show what happens until the operator ends it; once: when there is something to show for it.

    Raises ConfigError, KeyFileError.
    """
    rates = Rates()
    with Display(whole=not once) as display:
        while True:
            told = watching.look(followed, node, timeout)
            is_first = rates.note(told, time.monotonic())
            if not (once and is_first):
                display.show(parts(str(followed.file), told, rates))
                if once:
                    return
            if not display.wait(interval):
                return


class Rates:
    """How fast counts rise. A process that has started again begins anew."""

    def __init__(self) -> None:
        self.when = 0.0
        self.counts: dict[tuple[str, str], int] = {}  # by boot and what is counted
        self.per_second: dict[tuple[str, str], float] = {}

    def note(self, told: Document, now: float) -> bool:
        """Take a look's counts; whether it is the first one."""
        counts = counted_in(told)
        seconds, is_first = max(now - self.when, 1e-3), not self.when
        self.per_second = {
            key: max(0, count - self.counts[key]) / seconds for key, count in counts.items() if key in self.counts
        }
        self.counts, self.when = counts, now
        return is_first

    def of(self, one: Document, name: str) -> float | None:
        """How fast a count of a process rises, if that is known."""
        return self.per_second.get((str(one.get("boot", "")), name))


def counted_in(told: Document) -> dict[tuple[str, str], int]:
    """What is counted in a look, by boot and name."""
    if told.get("embedded"):
        return {("", name): told[name] for name in ("announces", "refusals") if name in told}
    found = {(str(one.get("boot", "")), "shed"): one["shed"] for one in told["gateways"] if "shed" in one}
    for shard in told["shards"]:
        if "copies" in shard:
            found[str(shard.get("boot", "")), "copied"] = shard["copies"]["counts"].get("bytes", 0)
    return found


def parts(file: str, told: Document, rates: Rates) -> list[RenderableType]:
    """A look: what is wrong, then gateways and shards."""
    if told.get("embedded"):
        return embedded_parts(told, rates)
    totals = told["totals"]
    peers = totals["seeders"] + totals["leechers"]
    answers, refused = (counted(totals[f"{name}_per_s"], name[:-1]) for name in ("answers", "refusals"))
    what = f"{answers} and {refused} a second; {counted(totals['torrents'], 'torrent')}, {counted(peers, 'peer')}"
    return [
        Text(f"{time.strftime('%H:%M:%S')}  {file}, version {told['config']['version']}"),
        Text(what),
        *status_tables.verdict(told),
        *shown.table(
            ("gateway", "answers/s", "refused/s", "shed/s", "connections", "hears", "round trip"),
            [gateway_row(one, rates) for one in told["gateways"]],
        ),
        *shown.table(
            ("shard", "announces/s", "torrents", "peers", "memory", "slices", "copied/s", "round trip"),
            [shard_row(one, rates) for one in told["shards"]],
        ),
    ]


def embedded_parts(told: Document, rates: Rates) -> list[RenderableType]:
    """The embedded tracker."""
    per_second = [rates.of(told, name) for name in ("announces", "refusals")]
    announces, refusals = (NOTHING if rate is None else f"{rate:,.0f}" for rate in per_second)
    what = f"{time.strftime('%H:%M:%S')}  {announces} announces a second, {refusals} refused"
    return [Text(what), *status_tables.embedded_parts(told)]


def gateway_row(one: Document, rates: Rates) -> list[Cell]:
    """What a gateway does."""
    if one["state"] in ("silent", "unknown"):
        return [Text(one["name"], shown.BAD), *[NOTHING] * 6]
    shed = rates.of(one, "shed")
    good, links = shown.good_links(one), one.get("links", ())
    return [
        one["name"],
        *numbers(one, "answers_per_s", "refusals_per_s"),
        NOTHING if shed is None else f"{shed:,.0f}",
        *numbers(one, "connections"),
        f"{len(good)} of {len(links)}",
        shown.round_trip(one),
    ]


def shard_row(shard: Document, rates: Rates) -> list[Cell]:
    """What a shard has and does."""
    if shard["state"] == "silent":
        return [Text(shard["name"], shown.BAD), *[NOTHING] * 7]
    peers = {"peers": shard["seeders"] + shard["leechers"]} if "seeders" in shard and "leechers" in shard else {}
    copied = rates.of(shard, "copied")
    return [
        shard["name"],
        *numbers(shard, "announces_per_s", "torrents"),
        *numbers(peers, "peers"),
        shown.used(shard["memory"]) if "memory" in shard else NOTHING,
        shown.slices_of(shard),
        NOTHING if copied is None else size_of(copied),
        shown.round_trip(shard),
    ]
