"""What running processes take up of an edited configuration, and what waits for the next start.

At once: who is there and where, weights, replicas, the version, and admin addresses, which follow from who is there.
All else was used when the processes of a node started: sockets were opened, memory was laid out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import msgspec

from common import config_checks, edits
from common.config import Gateway
from common.config_errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.config import Config, Shard

AT_ONCE = ("version", "nodes", "insecure", "gateways", "shards", "replicas", "admin")
MEANWHILE = "for as long as the tracker runs as it was started"


def taken_up(old: Config, new: Config, node: str) -> Config:
    """The configuration that processes of a node are to have after an edit, by what they have now and the file.

    Raises ConfigError if the edit cannot be taken up.
    """
    if old.is_embedded and new.is_embedded:  # nobody else has to agree
        return msgspec.structs.replace(old, version=new.version)
    edits.check(old, new)
    _check_node(old, new, node)
    before = {(type(process), process.name): process for process in old.on_node(node)}
    processes = {
        kind: tuple(
            _as_it_runs(before.get((type(one), one.name)), one) if new.node_of(one) == node else one
            for one in getattr(new, kind)
        )
        for kind in ("gateways", "shards")
    }
    taken = msgspec.structs.replace(old, **{name: getattr(new, name) for name in AT_ONCE} | processes)
    try:
        config_checks.check(taken)
    except ConfigError as error:
        raise ConfigError(error.where, f"{error.expected}, {MEANWHILE}", error.found) from None
    return taken


def later(taken: Config, new: Config) -> list[str]:
    """The settings of the file that wait for the next start, as paths."""
    return list(_differences(taken, new, ""))


def _check_node(old: Config, new: Config, node: str) -> None:
    """The node has the name and the key by which its processes were started."""
    if bool(old.nodes) != bool(new.nodes):
        expected = "nodes, as before" if old.nodes else "none, as before"
        raise ConfigError("nodes", f"{expected}: stop the tracker, then start it with another", "others")
    keys = {str(one.name): one.key for one in old.nodes}
    for at, one in enumerate(new.nodes):
        if one.name == node and node in keys and one.key != keys[node]:
            expected = "the key by which this node runs: stop it, then start it with another"
            raise ConfigError(f"nodes[{at}].key", expected, one.key or "none")


def _as_it_runs(old: Gateway | Shard | None, new: Gateway | Shard) -> Gateway | Shard:
    """A process of the file, with what it has had since its start."""
    if old is None:
        return new
    kept = ("listen",) if isinstance(new, Gateway) else ("bind", "memory")
    return msgspec.structs.replace(new, **{name: getattr(old, name) for name in kept})


def _differences(ours: object, theirs: object, path: str) -> Iterator[str]:
    if ours == theirs:
        return
    if isinstance(ours, msgspec.Struct) and isinstance(theirs, msgspec.Struct):
        for name in ours.__struct_fields__:
            yield from _differences(getattr(ours, name), getattr(theirs, name), f"{path}.{name}".removeprefix("."))
    elif _are_structs(ours) and _are_structs(theirs) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{path}[{at}]")
    else:
        yield path


def _are_structs(value: object) -> TypeGuard[tuple[msgspec.Struct, ...]]:
    return isinstance(value, tuple) and all(isinstance(each, msgspec.Struct) for each in value)
