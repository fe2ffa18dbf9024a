"""Whom workers run as, and what that user must be able to read: found out before anything runs."""

import contextlib
import fcntl
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from cluster.worker import User
from common import keys
from common.config import Config, ConfigError, Gateway
from common.keys import KeyFileError


def find_user(config: Config) -> User | None:
    """Whom workers are to become; None if they stay who we are. Raises ConfigError."""
    if config.user is None:
        return None
    try:
        entry = pwd.getpwnam(config.user)
    except KeyError:
        raise ConfigError("user", "a user of this machine", repr(str(config.user))) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        expected = f"a start by root, who can become {entry.pw_name}, or by {entry.pw_name}"
        raise ConfigError("user", expected, f"user {_name(os.geteuid())}")
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, os.getgrouplist(entry.pw_name, entry.pw_gid))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@contextlib.contextmanager
def acting_as(user: User | None) -> Iterator[None]:
    """Be that user meanwhile. Raises ConfigError if this process may not."""
    if user is None:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(user.groups)
        os.setegid(user.gid)
        os.seteuid(user.uid)
    except OSError as error:
        expected = f"a process that may become {user.name} (CAP_SETUID, CAP_SETGID)"
        raise ConfigError("user", expected, str(error.strerror)) from None
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def make_files(config: Config, node: str, user: User | None) -> None:
    """Make the directories and key files that a node's workers need, and see to it that they can use them.

    Where several nodes share keys, none makes its own. Raises ConfigError, KeyFileError.
    """
    one_node = len(config.node_names()) == 1
    for directory in dict.fromkeys([config.data, config.key_directory] if one_node else [config.data]):
        _make_directory(directory, user)
    with acting_as(user):
        for directory in (config.data, config.key_directory):
            check_reach(directory, user)
        if not config.is_embedded:
            with _explained(config.data, user):
                _make_run_directory(config.run_directory)
        with _explained(config.key_directory, user):
            _load_keys(config, node, make=one_node)


@contextlib.contextmanager
def _explained(directory: Path, user: User | None) -> Iterator[None]:
    """Add what is to be done where the user lacks a permission."""
    try:
        yield
    except KeyFileError as error:
        if user is None or not isinstance(error.__context__, PermissionError):
            raise
        raise KeyFileError(f"{error}; workers run as {user.name}: chown -R {user.name} {directory}") from None


def _load_keys(config: Config, node: str, *, make: bool) -> None:
    if make:
        keys.make(config.key_directory)
    load_keys(config, node)


def load_keys(config: Config, node: str) -> None:
    """Read the key files that a node's workers need. Raises ConfigError, KeyFileError."""
    directory = config.key_directory
    keys.load_cluster(directory)
    if any(isinstance(process, Gateway) for process in config.on_node(node)):
        keys.load(directory)
    keys.node_key(config, node)


def _make_directory(directory: Path, user: User | None) -> None:
    """Make it if it is missing, for the user."""
    try:
        directory.mkdir(mode=0o700, parents=True)
        if user is not None:
            os.chown(directory, user.uid, user.gid, follow_symlinks=False)
    except FileExistsError:
        if not directory.is_dir():
            raise KeyFileError(f"{directory}: not a directory") from None
    except OSError as error:
        raise KeyFileError(f"{directory}: cannot be made: {error.strerror}") from None


def _make_run_directory(directory: Path) -> None:
    """Nobody else may link to the shards."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise KeyFileError(f"{directory}: cannot be made with mode 0700: {error.strerror}") from None


def lock(config: Config, node: str, user: User | None) -> int:
    """A descriptor that holds the sockets' directory for one `shoal up` of a node; it is free again when that ends.

    A second one would take the first one's links over. Raises ConfigError, KeyFileError.
    """
    path = config.run_directory / f"{node or 'node'}.lock"
    with acting_as(user):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KeyFileError(f"{path}: cannot be made: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        expected = "a directory where this node does not run already"
        raise ConfigError("data", expected, f"another `shoal up` in {config.data}") from None
    return fd


def check_reach(directory: Path, user: User | None) -> None:
    """Refuse a directory that whom we act as cannot enter."""
    for path in (*reversed(directory.parents), directory):
        may = os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids)
        if not may and path.exists():
            who = user.name if user else _name(os.geteuid())
            remedy = f"chown -R {who} {path}" if path == directory else f"chmod o+x {path}"
            raise KeyFileError(f"{path}: {who}, whom workers run as, may not enter it: {remedy}")
