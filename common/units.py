"""Durations and sizes as people write them: `30m`, `1h30m`, `64 MiB`, `500 kB`."""

import re
from fractions import Fraction

SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}

DURATION = re.compile(r"(?:(\d{1,9})\s*d)?\s*(?:(\d{1,9})\s*h)?\s*(?:(\d{1,9})\s*m)?\s*(?:(\d{1,9})\s*s)?", re.ASCII)
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]+)", re.ASCII)


def parse_duration(text: str) -> int:
    """Seconds in `1h30m`, `90 s`, `2d`: days, hours, minutes and seconds, each at most once and in this order.

    Raises ValueError.
    """
    match = DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration such as 30m, 90 s or 1h30m")
    return sum(int(count or 0) * seconds for count, seconds in zip(match.groups(), SECONDS.values(), strict=True))


def parse_size(text: str) -> int:
    """Bytes in `64 MiB`, `1.5 GiB`, `500 kB`. Raises ValueError."""
    match = SIZE.fullmatch(text.strip())
    if match is None or match[2] not in BYTES:
        raise ValueError(f"{text!r} is not a size such as 64 MiB, 1 GiB or 500 kB")
    size = Fraction(match[1]) * BYTES[match[2]]
    if size.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads back: 5400 is `1h30m`."""
    text = ""
    for unit, length in SECONDS.items():
        count, seconds = divmod(seconds, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def format_size(size: int) -> str:
    """A text that `parse_size` reads back, in the largest binary unit that divides it: 1 << 30 is `1 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]} {unit}"
    return f"{size} B"
