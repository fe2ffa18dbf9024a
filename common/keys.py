"""The key files of a cluster, in one directory, readable by their owner alone.

cluster.key        16 bytes: places info-hashes in slices, so nobody can aim at one shard
connection-id.key  16 bytes, and those before the last rotation: signs connection ids
NODE.key           a CURVE key pair: by it the processes of a node prove themselves to others

Nodes share the first two, of which a node without gateways needs but cluster.key, and each has but its own of the
last. Each is text, a version line and then
`name value` lines, so an operator can tell one from the other and a later version can tell that it does not know it.
"""

import os
import pwd
import secrets
import stat
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.config import Config

KEY = 16
CLUSTER = "cluster.key"
CONNECTION_ID = "connection-id.key"
CLUSTER_VERSION = "shoal cluster key 1"
CONNECTION_ID_VERSION = "shoal connection-id key 1"
NODE_VERSION = "shoal node key 1"
MAKE = "shoal keys make --config FILE"
COPY = f"copy it from another node, or make it once for all nodes: {MAKE}"


class KeyFileError(Exception):
    """A key file or its directory cannot be used; the text names it and says why, in one line."""


@dataclass(frozen=True, slots=True)
class ConnectionKey:
    """The key of connection ids. `previous` still verifies ids that were made before `rotated`, a unix time."""

    current: bytes
    previous: bytes | None
    rotated: int


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The CURVE keys of a node, in Z85 (ZeroMQ RFC 32)."""

    name: str
    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """What all processes of a cluster share."""

    cluster: bytes
    connection_id: ConnectionKey


def load_or_create(directory: Path) -> Keys:
    """The keys in a directory; what is missing is made, the directory too. Raises KeyFileError.

    For one node alone: several would each make their own, and refuse each other's links.
    """
    make(directory)
    return load(directory)


def of_cluster(config: "Config") -> Keys:
    """The keys that a configuration's processes share; made if missing, unless several nodes share them.

    Raises KeyFileError.
    """
    directory = config.key_directory
    return load_or_create(directory) if len(config.nodes) < 2 else load(directory)


def cluster_key(config: "Config") -> bytes:
    """The cluster's key alone, which is all that a shard needs of them; made as `of_cluster` does.

    Raises KeyFileError.
    """
    if len(config.nodes) < 2:
        make(config.key_directory)
    return load_cluster(config.key_directory)


def load(directory: Path) -> Keys:
    """The keys in a directory. Raises KeyFileError; if a file is missing, it says what makes it."""
    for name in (CLUSTER, CONNECTION_ID):
        _expect(directory / name, COPY)
    return Keys(load_cluster(directory), load_connection_key(directory / CONNECTION_ID))


def load_cluster(directory: Path) -> bytes:
    """The cluster's key in a directory. Raises KeyFileError as `load` does."""
    _expect(directory / CLUSTER, COPY)
    _check_owner(directory)
    return load_cluster_key(directory / CLUSTER)


def make(directory: Path, user: str | None = None) -> list[Path]:
    """Make what nodes share, and is missing. Gives the files made; root gives them to `user`. Raises KeyFileError."""
    owner = _owner(user)
    make_directory(directory, user)
    texts = {
        CLUSTER: _cluster_text(secrets.token_bytes(KEY)),
        CONNECTION_ID: _connection_id_text(ConnectionKey(secrets.token_bytes(KEY), None, int(time.time()))),
    }
    return [directory / name for name, text in texts.items() if _create(directory / name, text, owner)]


def make_node_key(directory: Path, name: str, user: str | None = None) -> NodeKey:
    """The keys of a node; they are made if their file is not there. Raises KeyFileError."""
    import zmq

    public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
    make_directory(directory, user)
    _create(node_path(directory, name), f"{NODE_VERSION}\npublic {public}\nsecret {secret}\n", _owner(user))
    return load_node_key(directory, name)


def load_node_key(directory: Path, name: str) -> NodeKey:
    """The keys of a node. Raises KeyFileError, also if they are not a pair."""
    import zmq

    path = node_path(directory, name)
    fields = _fields(path, NODE_VERSION, {"public", "secret"})
    try:
        public = zmq.curve_public(fields["secret"].encode("ascii")).decode("ascii")
    except (zmq.ZMQError, ValueError):
        raise KeyFileError(f"{path}: its secret is not 40 characters of Z85") from None
    if public != fields["public"]:
        raise KeyFileError(f"{path}: its public key is not that of its secret")
    return NodeKey(name, public, fields["secret"])


def node_key(config: "Config", node: str) -> NodeKey | None:
    """The keys of a node of the configuration; None if that has no keys.

    Raises KeyFileError, also if the configuration has another public key for the node.
    """
    if not config.has_keys:
        return None
    path = node_path(config.key_directory, node)
    _expect(path, f"copy it from where it was made, or make another: {MAKE} --node {node}")
    key = load_node_key(config.key_directory, node)
    if key.public not in [wanted.key for wanted in config.nodes if wanted.name == node]:
        raise KeyFileError(f"{path}: the configuration has another public key for {node} than this: {key.public}")
    return key


def node_path(directory: Path, name: str) -> Path:
    """The file with the keys of a node."""
    return directory / f"{name}.key"


def cluster_digest(key: bytes) -> int:
    """64 bits that tell clusters apart, and nothing of the cluster key."""
    return int.from_bytes(blake2b(key, digest_size=8, person=b"shoal cluster").digest(), "little")


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
        was = path.stat()
        owner = (was.st_uid, was.st_gid) if os.geteuid() == 0 else None
        os.replace(_write_temporary(path, _connection_id_text(new), owner), path)
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None
    return new


def _cluster_text(key: bytes) -> str:
    return f"{CLUSTER_VERSION}\nkey {key.hex()}\n"


def _connection_id_text(key: ConnectionKey) -> str:
    previous = key.previous.hex() if key.previous else "none"
    return f"{CONNECTION_ID_VERSION}\ncurrent {key.current.hex()}\nprevious {previous}\nrotated {key.rotated}\n"


def make_directory(directory: Path, user: str | None = None) -> None:
    """Make the directory unless it is there; root gives it to `user`. Raises KeyFileError."""
    try:
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (owner := _owner(user)) is not None:
                os.chown(directory, *owner, follow_symlinks=False)
    except FileExistsError:
        raise KeyFileError(f"{directory}: the directory of key files is a file") from None
    except OSError as error:
        raise KeyFileError(f"{directory}: the directory of key files cannot be made: {error.strerror}") from None
    _check_owner(directory)


def _check_owner(directory: Path) -> None:
    """Root may use anybody's directory; others their own and root's. Raises KeyFileError."""
    try:
        owner = directory.stat().st_uid
    except OSError as error:
        raise KeyFileError(f"{directory}: cannot be read: {error.strerror}") from None
    if os.geteuid() not in (owner, 0) and owner != 0:
        raise KeyFileError(f"{directory}: the directory of key files belongs to another user (uid {owner})")


def _owner(user: str | None) -> tuple[int, int] | None:
    """Whose the files are to be, if that is not who makes them."""
    if user is None or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise KeyFileError(f"user: expected a user of this machine, to whom key files belong, found {user!r}") from None
    return entry.pw_uid, entry.pw_gid


def _expect(path: Path, advice: str) -> None:
    """Say what to do about a file that is not there. Raises KeyFileError."""
    try:
        path.lstat()
    except FileNotFoundError:
        raise KeyFileError(f"{path}: there is no such file: {advice}") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None


def _create(path: Path, text: str, owner: tuple[int, int] | None = None) -> bool:
    """Write a file unless it is there; of two processes that start at once, one wins and both read it."""
    try:
        if path.exists():
            return False
        temporary = _write_temporary(path, text, owner)
        try:
            os.link(temporary, path)  # unlike a rename, it never replaces
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be made: {error.strerror}") from None
    return True


def _write_temporary(path: Path, text: str, owner: tuple[int, int] | None = None) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        if owner is not None:
            os.fchown(fd, *owner)
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
