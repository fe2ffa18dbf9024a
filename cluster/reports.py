"""What processes say of themselves, checked once, so that whoever shows it meets no surprise.

A process of another version may say more, less, or the same in another form: what is not known is left out, what
does not fit is left out and named.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, ValidationError

from common import frames

Document = dict[str, Any]
Word = Annotated[str, Meta(pattern=r"^[ -~]*\Z", max_length=300)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Counts = dict[Word, Count]
State = Annotated[int, Meta(ge=frames.STATE_NONE, le=frames.STATE_FULL)]
Text = Annotated[str, Meta(max_length=2000)]  # of any characters: those that do not print are replaced


class Link(Struct):
    """A link to a shard, as who made it has it."""

    shard: Word
    silent: bool = False
    refused: Word = ""
    unanswered: Count = 0
    round_trip_ms: Count = 0
    lost: Count = 0


class Ping(Struct):
    """A process that pings a shard, as the shard has it."""

    name: Word
    role: Word
    heard_ms: Count
    boot: Word = ""
    config_version: Count = 0
    table: Word = ""
    report: Document = {}


class Slices(Struct):
    """How many slices a shard has, by what it has of them, and how many it should have."""

    full: Count = 0
    part: Count = 0
    leaving: Count = 0
    wanted: Count = 0


class Held(Struct):
    """What a shard has of each slice, in lists that belong together."""

    slice: list[Count] = []
    state: list[State] = []
    torrents: list[Count] = []
    leechers: list[Count] = []
    seeders: list[Count] = []

    def __post_init__(self) -> None:
        if len({len(each) for each in (self.slice, self.state, self.torrents, self.leechers, self.seeders)}) > 1:
            raise ValueError("lists of different lengths")


class Fill(Struct):
    """How many slices there were to fill since the last time that there were none, and how many are left."""

    of: Count = 0
    left: Count = 0
    since_ms: Count = 0


class Source(Struct):
    """A shard that another one copies from."""

    shard: Word
    waiting: Count = 0
    chunks: Count = 0
    bytes: Count = 0
    restarts: Count = 0


class Copies(Struct):
    """What a shard copies from others."""

    fill: Fill = msgspec.field(default_factory=Fill)
    counts: Counts = {}
    sources: list[Source] = []


class Memory(Struct):
    """Bytes."""

    taken: Count = 0
    ceiling: Count = 0


COMMON: Document = {
    "ok": bool,
    "failed_tasks": list[Word],
    "kernel_faults": Count,
    "version": Word,
    "uptime_s": Count,
    "config_refused": Text,
    "dropped": Counts,
    "links": list[Any],
}
OF_SHARD: Document = COMMON | {
    "torrents": Count,
    "seeders": Count,
    "leechers": Count,
    "ipv6": Count,
    "announces_per_s": Count,
    "boot": Word,
    "stalls": Count,
    "stopping": bool,
    "config_version": Count,
    "table": Word,
    "slices": Slices,
    "copies": Copies,
    "held": Held,
    "memory": Memory,
    "refused": Counts,
    "unlisted": Count,
    "peers": list[Any],
}
OF_GATEWAY: Document = COMMON | {"answers_per_s": Count, "refusals_per_s": Count, "connections": Count, "shed": Count}
UNFIT = (ValidationError, UnicodeEncodeError)  # the latter: half a character
PARTS: Document = {"links": Link, "peers": Ping}


def fit(said: Document, forms: Document) -> Document:
    """What is known and fits; `nonsense` names what does not fit, if there is such."""
    fitted: Document = {}
    nonsense: list[str] = []
    for name in [name for name in forms if name in said]:
        try:
            value = msgspec.convert(said[name], forms[name])
            fitted[name] = printable(value) if forms[name] is Text else msgspec.to_builtins(value)
        except UNFIT:
            nonsense.append(name)
            continue
        if name in PARTS:
            parts = fitted[name] = [part for part in map(_part(PARTS[name]), value) if part is not None]
            nonsense += [name] if len(parts) < len(value) else []
    return {**fitted, "nonsense": nonsense} if nonsense else fitted


def printable(text: str) -> str:
    """The same without what could steer a terminal. Raises UnicodeEncodeError."""
    text.encode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _part(form: type[Struct]) -> Any:
    """What makes a document of a part of a list; None of what does not fit."""

    def part(said: Any) -> Any:
        try:
            return msgspec.to_builtins(msgspec.convert(said, form))
        except UNFIT:
            return None

    return part
