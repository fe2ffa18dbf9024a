"""`shoal status --watch`: one look after another, with progress bars while slices are on the move."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cluster import shown, status, status_tables
from cluster.live import Display
from cluster.moves import Moves

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cluster.followed import Followed

Document = dict[str, Any]


def watch(followed: Followed, node: str | None, timeout: float, interval: float) -> None:
    """Show looks until the operator interrupts it. Raises ConfigError, KeyFileError."""
    moves = Moves()
    with Display() as display:
        while True:
            display.show(parts(str(followed.file), look(followed, node, timeout), moves))
            display.wait(interval)


def watch_as_json(followed: Followed, node: str | None, timeout: float, interval: float) -> None:
    """The same for programs: a document a line. Raises ConfigError, KeyFileError."""
    while True:
        began = time.monotonic()
        print(json.dumps(look(followed, node, timeout)), flush=True)
        time.sleep(max(0.0, began + interval - time.monotonic()))


def look(followed: Followed, node: str | None, timeout: float) -> Document:
    """A look by what the file means now; a fault of the file is one of the cluster."""
    told = status.look_at(followed.look(), node, timeout)
    if followed.fault:
        told |= {"ok": False, "problems": [followed.fault, *told["problems"]]}
    return told


def parts(file: str, told: Document, moves: Moves) -> list[RenderableType]:
    """A look, what matters most above: a terminal may not have room for all."""
    if told.get("embedded"):
        return status_tables.embedded_parts(told)
    bars = moves.parts(told["shards"])
    return [
        *status_tables.head_lines(file, told),
        *status_tables.verdict(told),
        *([Text(""), *bars] if bars else []),
        *shown.lines(status.tell_departing(told["shards"], told["gateways"])),
        *status_tables.figures_of(told),
    ]
