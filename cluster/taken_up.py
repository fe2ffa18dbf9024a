"""What a node has taken up last: a file in `data`, so that a start with an older `cluster.yaml` is refused.

Only in a cluster: nobody else has to agree with the embedded tracker.
"""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from cluster import privileges
from common import config, edits
from common.config_errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.worker import User
    from common.config import Config

log = logging.getLogger("shoal")


def path_of(wanted: Config, node: str) -> Path:
    """Where it is, for a node."""
    return wanted.data / f"taken-up-{node or 'node'}.json"


def check(wanted: Config, node: str, user: User | None) -> str:
    """Refuse what may not follow what was taken up before. Raises ConfigError, which names the file in `data`.

    Gives a line if that file cannot be read: then nothing is refused.
    """
    if wanted.is_embedded:
        return ""
    path = path_of(wanted, node)
    try:
        with privileges.acting_as(user):
            before = config.decode(path.read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, ConfigError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return f"{path} cannot be read, so nothing is known of what was taken up before: {why}"
    try:
        # Its directory may have been moved, and paths of links with it.
        edits.check(msgspec.structs.replace(before, data=wanted.data), wanted)
    except ConfigError as error:
        expected = f"{error.expected} ({path} says so; remove it if this is another cluster)"
        raise ConfigError(error.where, expected, error.found) from None
    return ""


def note(taken: Config, node: str, user: User | None) -> None:
    """Remember what is taken up. It is no reason not to run if that fails."""
    if taken.is_embedded:
        return
    path, content = path_of(taken, node), config.encode(taken)
    try:
        with privileges.acting_as(user):
            if not path.exists() or path.read_bytes() != content:
                _replace(path, content)
    except OSError as error:
        log.warning("%s cannot be written, so an older configuration will not be refused: %s", path, error.strerror)


def _replace(path: Path, content: bytes) -> None:
    """All of it or nothing, for its owner alone."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
