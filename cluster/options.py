"""Values on the command line of `shoal` that click does not know."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from common.units import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[click.Context, click.Parameter, str | None], float | None]

SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,3})?", re.ASCII)


def duration(least: float) -> Read:
    """Reads a duration, `1s`, `10m` or a number of seconds, of at least so many seconds."""

    def read(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            seconds = float(text) if SECONDS.fullmatch(text) else float(parse_duration(text))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a duration such as 1s, 90 or 10m") from None
        if seconds < least:
            raise click.BadParameter(f"{text!r} is less than {least:g} s")
        return seconds

    return read
