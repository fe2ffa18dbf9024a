"""`shoal keys`: makes the key files of a cluster, lists them, rotates the key of connection ids. It shows no secret."""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import config, keys
from common.keys import KeyFileError

if TYPE_CHECKING:
    from pathlib import Path

    from common.config import Config, Node

SHARED = {keys.CLUSTER: keys.load_cluster_key, keys.CONNECTION_ID: keys.load_connection_key}


class NodeError(Exception):
    """A node that the configuration does not have; the text says which it has."""


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What `list` tells of a file; `wrong` if the cluster cannot work with it."""

    file: str
    mode: str  # empty if there is no such file
    public: str  # empty if it has none that may be shown
    state: str
    wrong: bool = False


def configuration(file: Path | None) -> Config:
    """The configuration, its nodes with or without keys; of the embedded tracker without a file. Raises ConfigError."""
    return config.read(None) if file is None else config.load(file, keyed=False)


def make(wanted: Config, node: str | None = None) -> tuple[list[str], bool]:
    """Make what is missing; of one node only its own. Nothing is ever replaced.

    Gives lines for the operator, and whether the configuration has no wrong public key.
    Raises KeyFileError and NodeError.
    """
    directory = wanted.key_directory
    chosen = [each for each in wanted.nodes if node in (None, each.name)]
    if node is not None and not chosen:
        known = "one of " + ", ".join(wanted.node_names()) if wanted.nodes else "none, as `nodes` is empty"
        raise NodeError(f"--node: expected {known}, found {node!r}")
    lines = []
    if node is None:
        made = keys.make(directory, wanted.user)
        lines += [_made(directory / name, directory / name in made) for name in SHARED]
        keys.load(directory)
        if made and len(wanted.nodes) > 1:
            lines.append("all nodes need these very files: copy them, do not make them again on another node")
    told, fine = [], True
    for each in chosen:
        path = keys.node_path(directory, each.name)
        is_new = not _mode(path)
        if is_new and each.key is not None and node is None:
            told.append(f"{each.name}: the configuration has its public key; the secret is not here, and not made anew")
            continue
        key = keys.make_node_key(directory, each.name, wanted.user)
        lines.append(_made(path, is_new))
        told += [_compared(each, key), f'    key: "{key.public}"']
        fine &= each.key in (None, key.public)
    return lines + told, fine


def listed(wanted: Config) -> list[KeyFile]:
    """All key files that the configuration needs, and those that are there besides. Raises KeyFileError."""
    directory = wanted.key_directory
    known = [_shared(directory / keys.CLUSTER), _shared(directory / keys.CONNECTION_ID, _has_gateways(wanted))]
    known += [_of_node(directory, node) for node in wanted.nodes]
    try:
        names = sorted(path.name for path in directory.glob("[!.]*.key"))
    except OSError as error:
        raise KeyFileError(f"{directory}: cannot be read: {error.strerror}") from None
    others = [name for name in names if name not in {key.file for key in known}]
    return known + [KeyFile(name, _mode(directory / name), "", "of no node") for name in others]


def rotate(wanted: Config, now: float | None = None) -> list[str]:
    """Put a new key of connection ids in place. Gives lines for the operator. Raises KeyFileError."""
    path = wanted.key_directory / keys.CONNECTION_ID
    keys.rotate_connection_key(path, time.time() if now is None else now)
    lines = [
        f"{path}: rotated; ids made with the key before it stay good for as long as they would have been",
        "gateways take it up within a second where they see this file",
    ]
    if len(wanted.nodes) > 1:
        lines.append("copy it to the other nodes at once: until then they refuse connection ids made with it")
    return lines


def _made(path: Path, is_new: bool) -> str:
    return f"{path}: {'made' if is_new else 'there already'}"


def _compared(node: Node, key: keys.NodeKey) -> str:
    if node.key is None:
        return f"{node.name}: the configuration lacks its public key; add this line to the node:"
    if node.key == key.public:
        return f"{node.name}: the configuration has its public key:"
    return f"{node.name}: the configuration has ANOTHER public key; that of the file here is:"


def _has_gateways(wanted: Config) -> bool:
    """Whether a gateway may be here, by the nodes whose secrets are."""
    here = {node.name for node in wanted.nodes if _mode(keys.node_path(wanted.key_directory, node.name))}
    return not here or any(wanted.node_of(gateway) in here for gateway in wanted.gateways)


def _shared(path: Path, needed: bool = True) -> KeyFile:
    mode = _mode(path)
    if not mode and not needed:
        return KeyFile(path.name, "", "", "not needed, as no gateway is here")
    if not mode:
        return KeyFile(path.name, "", "", "missing", wrong=True)
    try:
        SHARED[path.name](path)
    except KeyFileError as error:
        return KeyFile(path.name, mode, "", _why(path, error), wrong=True)
    return KeyFile(path.name, mode, "", "fine")


def _of_node(directory: Path, node: Node) -> KeyFile:
    path = keys.node_path(directory, node.name)
    mode = _mode(path)
    if not mode:
        # A node's secret is where the node is; what is not made yet is no fault either.
        return KeyFile(path.name, "", node.key or "", "not here" if node.key else "not made yet")
    try:
        key = keys.load_node_key(directory, node.name)
    except KeyFileError as error:
        return KeyFile(path.name, mode, "", _why(path, error), wrong=True)
    states = {None: "not in the file", key.public: "agrees"}
    state = states.get(node.key, "ANOTHER in the file")
    return KeyFile(path.name, mode, key.public, state, wrong=node.key not in states)


def _why(path: Path, error: KeyFileError) -> str:
    return str(error).removeprefix(f"{path}: ")


def _mode(path: Path) -> str:
    try:
        return f"{stat.S_IMODE(path.stat().st_mode):04o}"
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
