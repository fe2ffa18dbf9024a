"""The configuration as a supervisor hands it to its workers: a file that it may write again while they read.

It begins with a line, the CRC-32 and the length of the rest; the rest is JSON, `config` and `refused`. What does not
fit its first line is being written. Standard library only: the supervisor, which is to stay small, writes it.
"""

import json
import os
import stat
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

LONGEST_LINE = 64  # bytes of the first line, more than it ever has
TRIES = 100
PAUSE = 0.002  # seconds between two tries


class TornError(Exception):
    """The file does not fit its first line, however often it is read."""


class Given(NamedTuple):
    """What the supervisor has last written."""

    config: Any  # as JSON has it
    refused: str  # why the file that the operator wrote since is not taken up; empty if it is


def write(fd: int, config: Any, refused: str = "") -> None:
    """Put this in place of what is there."""
    rest = json.dumps(Given(config, refused)._asdict()).encode()
    blob = b"%08x %d\n" % (zlib.crc32(rest), len(rest)) + rest
    view = memoryview(blob)
    at = 0
    while at < len(blob):
        at += os.pwrite(fd, view[at:], at)
    os.ftruncate(fd, len(blob))


def mark(fd: int) -> bytes:
    """The first line, which is another if anything is."""
    return os.pread(fd, LONGEST_LINE, 0).partition(b"\n")[0]


def read(fd: int) -> Given:
    """What is there, as soon as it is whole. Raises TornError if that takes too long. The offset stays."""
    for _ in range(TRIES):
        rest = _read_whole(fd)
        if rest is not None:
            return Given(**json.loads(rest))
        time.sleep(PAUSE)
    raise TornError("the configuration that was handed over is not whole")


def _read_whole(fd: int) -> bytes | None:
    """All but the first line; None if that tells of something else."""
    line, newline, _ = os.pread(fd, LONGEST_LINE, 0).partition(b"\n")
    crc, _, length = line.partition(b" ")
    if not newline or not length.isdigit():
        return None
    rest = os.pread(fd, int(length), len(line) + 1)
    return rest if len(rest) == int(length) and b"%08x" % zlib.crc32(rest) == crc else None


def stamp(path: Path | str) -> tuple[int, ...] | None:
    """What differs once an operator's file was written again; None if there is no such file now."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
