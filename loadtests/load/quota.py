"""A processor quota for a running tracker, by a cgroup of the kernel: version 2, or version 1 where `cpu` is of that.

Needs root, and a cgroup file system that may be written, which containers seldom have.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PERIOD = 10_000  # microseconds; the kernel's own 100,000 would let a tracker stand still for up to a tenth of a second
LEAST = 0.1  # of a core: the kernel takes no quota under 1,000 microseconds
PATIENCE = 5.0  # seconds for a group to be empty


class QuotaError(Exception):
    """No quota can be given here; says why in one line."""


class Place(NamedTuple):
    """Where a group can be made: a directory of a cgroup file system."""

    version: int
    directory: Path


def places(mounts: str, own: str) -> list[Place]:
    """Directories that groups may be made in, from /proc/self/mounts and /proc/self/cgroup; the likeliest first."""
    found = []
    for line in mounts.splitlines():
        _, directory, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            version = 2 if kind == "cgroup2" else 1
            inside = Path(directory + own_path(own, version))
            found += [Place(version, Path(directory))]
            found += [Place(version, inside)] if inside != Path(directory) else []
    return sorted(found, key=lambda place: place.version == 2)


def own_path(own: str, version: int) -> str:
    """The group that a process is in, by /proc/PID/cgroup; nothing if it is not told."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if (controllers == "") if version == 2 else ("cpu" in controllers.split(",")):
            return path.rstrip("/")
    return ""


@contextmanager
def limited(processes: Callable[[], Iterable[int]], share: float) -> Iterator[float]:
    """Give processes together a share of a core, those too that they start; yields the share. Raises QuotaError.

    `processes` is asked again until all of them are in, as one may start another meanwhile. Afterwards they may take
    what they want again.
    """
    share = max(share, LEAST)
    former, group = make(share, here())
    try:
        move(processes, group)
        yield share
    finally:
        with suppress(OSError):
            move(lambda: map(int, (group / "cgroup.procs").read_text().split()), former)
        remove(group)


def here() -> list[Place]:
    """The places of this machine."""
    return places(Path("/proc/self/mounts").read_text(), Path("/proc/self/cgroup").read_text())


def make(share: float, found: list[Place]) -> tuple[Path, Path]:
    """Make a group with a quota at the first place that can be; the group above, and its own. Raises QuotaError."""
    reasons = []
    for version, directory in found:
        group = directory / f"shoal-load-{os.getpid()}"
        try:
            group.mkdir()
            try:
                write(version, group, share)
                return directory, group
            except BaseException:
                remove(group)
                raise
        except OSError as error:
            reasons.append(f"{error.filename or group}: {error.strerror}")
    why = "; ".join(reasons) or "no cgroup file system with the processor is mounted"
    raise QuotaError(f"no processor quota can be given, which needs root and cgroups that may be written ({why})")


def write(version: int, group: Path, share: float) -> None:
    """Set the quota of a group. Raises OSError."""
    quota = round(PERIOD * share)
    if version == 1:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
        return
    if not (group / "cpu.max").exists():
        (group.parent / "cgroup.subtree_control").write_text("+cpu")
    (group / "cpu.max").write_text(f"{quota} {PERIOD}")


def move(processes: Callable[[], Iterable[int]], group: Path) -> None:
    """Put processes into a group, until there are no more to put. Raises OSError."""
    moved: set[int] = set()
    while new := set(processes()) - moved:
        for pid in new:
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(pid))
        moved |= new


def remove(group: Path) -> None:
    """Remove a group, once the last process has left it. Raises OSError if that does not happen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
