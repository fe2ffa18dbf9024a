"""The key files of a cluster, in its data directory, readable by their owner alone.

cluster.key        16 bytes: places info-hashes in slices, so nobody can aim at one shard
connection-id.key  16 bytes, and those before the last rotation: signs connection ids

Each is text, a version line and then `name value` lines, so an operator can tell one from the other
and a later version can tell that it does not know it.
"""

import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

KEY = 16
CLUSTER = "cluster.key"
CONNECTION_ID = "connection-id.key"
CLUSTER_VERSION = "shoal cluster key 1"
CONNECTION_ID_VERSION = "shoal connection-id key 1"


class KeyFileError(Exception):
    """A key file or its directory cannot be used; the text names it and says why, in one line."""


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """The key of connection ids. `previous` still verifies ids that were made before `rotated`, a unix time."""

    current: bytes
    previous: bytes | None
    rotated: int


@dataclass(frozen=True, slots=True)
class Keys:
    """What all processes of a cluster share."""

    cluster: bytes
    connection_id: ConnectionKey


def load_or_create(directory: Path) -> Keys:
    """The keys in a directory; what is missing is made, the directory too. Raises KeyFileError."""
    _make_directory(directory)
    cluster = directory / CLUSTER
    connection_id = directory / CONNECTION_ID
    _create(cluster, _cluster_text(secrets.token_bytes(KEY)))
    _create(connection_id, _connection_id_text(ConnectionKey(secrets.token_bytes(KEY), None, int(time.time()))))
    return Keys(load_cluster_key(cluster), load_connection_key(connection_id))


def load_cluster_key(path: Path) -> bytes:
    """The 16 bytes in a file. Raises KeyFileError."""
    return _hex_key(path, _fields(path, CLUSTER_VERSION, {"key"})["key"])


def load_connection_key(path: Path) -> ConnectionKey:
    """The key and its predecessor in a file. Raises KeyFileError."""
    fields = _fields(path, CONNECTION_ID_VERSION, {"current", "previous", "rotated"})
    previous = None if fields["previous"] == "none" else _hex_key(path, fields["previous"])
    if not (fields["rotated"].isascii() and fields["rotated"].isdigit() and len(fields["rotated"]) <= 12):
        raise KeyFileError(f"{path}: 'rotated' is not a unix time")
    return ConnectionKey(_hex_key(path, fields["current"]), previous, int(fields["rotated"]))


def rotate_connection_key(path: Path, now: float) -> ConnectionKey:
    """Put a new key in place of the current one, which becomes the previous; `now` is a unix time.

    Raises KeyFileError.
    """
    old = load_connection_key(path)
    new = ConnectionKey(secrets.token_bytes(KEY), old.current, int(now))
    try:
        os.replace(_write_temporary(path, _connection_id_text(new)), path)
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None
    return new


def _cluster_text(key: bytes) -> str:
    return f"{CLUSTER_VERSION}\nkey {key.hex()}\n"


def _connection_id_text(key: ConnectionKey) -> str:
    previous = key.previous.hex() if key.previous else "none"
    return f"{CONNECTION_ID_VERSION}\ncurrent {key.current.hex()}\nprevious {previous}\nrotated {key.rotated}\n"


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = directory.stat().st_uid
    except FileExistsError:
        raise KeyFileError(f"{directory}: the data directory is a file") from None
    except OSError as error:
        raise KeyFileError(f"{directory}: the data directory cannot be made: {error.strerror}") from None
    if owner not in (os.geteuid(), 0):
        raise KeyFileError(f"{directory}: the data directory belongs to another user (uid {owner})")


def _create(path: Path, text: str) -> None:
    """Write a file unless it is there; of two processes that start at once, one wins and both read it."""
    if path.exists():
        return
    try:
        temporary = _write_temporary(path, text)
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be made: {error.strerror}") from None


def _write_temporary(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    return temporary


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _fields(path: Path, version: str, names: set[str]) -> dict[str, str]:
    """The `name value` lines of a key file. Raises KeyFileError."""
    first, *lines = _read(path).splitlines() or [""]
    if first != version:
        raise KeyFileError(f"{path}: not a key file of this version (its first line is not '{version}')")
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    if set(fields) != names or len(lines) != len(names):
        raise KeyFileError(f"{path}: its lines are not {', '.join(sorted(names))}")
    return fields


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileError(f"{path}: others may read it (mode {mode:04o}); expected 0600: chmod 600 {path}")
            return file.read(4096).decode("ascii")
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{path}: not a key file") from None


def _hex_key(path: Path, text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY:
        raise KeyFileError(f"{path}: its key is not {2 * KEY} hex digits")
    return key
