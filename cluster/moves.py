"""What is on the move between looks at a cluster: progress bars of slices that shards fill, and of those that leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from cluster import status
from cluster.shown import counted, size_of

if TYPE_CHECKING:
    from rich.console import RenderableType

Document = dict[str, Any]
START = 3000  # ms within which a life begins with a fill: then all that was copied is of that


def make_progress() -> Progress:
    """Bars, each with what it is about to the left and how far it is to the right. Nobody starts it: it is drawn."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} slices", markup=False),
        TextColumn("{task.fields[more]}", markup=False),
        auto_refresh=False,
    )


class Moves:
    """The bars, by what each look at the shards found."""

    def __init__(self) -> None:
        self.before: dict[str, tuple[str, int, int]] = {}  # by shard: boot, bytes and peers that are no part of a fill
        self.most: dict[str, int] = {}  # by shard: of slices that are to leave

    def parts(self, shards: list[Document]) -> list[RenderableType]:
        """The bars of what moves; nothing if nothing does."""
        progress = make_progress()
        for shard in shards:
            if shard["state"] != "silent":
                self._note_fill(shard, progress)
                self._note_leaving(shard, progress)
        return [progress.get_renderable()] if progress.tasks else []

    def _note_fill(self, shard: Document, progress: Progress) -> None:
        left, of = status.to_fill(shard)
        counts = shard.get("copies", {}).get("counts", {})
        known = (counts.get("bytes", 0), counts.get("merged", 0))
        name, boot = shard["name"], shard.get("boot", "")
        if not left:
            self.before[name] = (boot, *known)
            return
        if self.before.get(name, ("",))[0] != boot:
            began_with_it = shard.get("uptime_s", 0) * 1000 - shard["copies"]["fill"]["since_ms"] < START
            self.before[name] = (boot, 0, 0) if began_with_it else (boot, *known)
        size, peers = (now - then for now, then in zip(known, self.before[name][1:], strict=True))
        so_far = f"{size_of(size)}, {counted(peers, 'peer')}"
        progress.add_task(f"{name} fills", total=of, completed=of - left, more=so_far)

    def _note_leaving(self, shard: Document, progress: Progress) -> None:
        left, name = status.to_leave(shard), shard["name"]
        if not left:
            self.most.pop(name, None)
            return
        most = self.most[name] = max(left, self.most.get(name, 0))
        progress.add_task(f"{name} hands over", total=most, completed=most - left, more="")
