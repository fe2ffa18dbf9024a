"""Which edits of `cluster.yaml` a running process may take up. See design: "Scaling by a config edit".

There is no coordinator: each process takes up what its own file says, and processes see by version and table whether
they agree. So a version must mean one topology, and a name one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.config_errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from common.config import Config

Shape = tuple[object, ...]


def shape_of(config: Config) -> Shape:
    """What a version stands for: nodes, shards, addresses, weights, replicas. Their order in the file is no matter."""
    nodes = sorted((str(node.name), str(node.key or "")) for node in config.nodes)
    shards = sorted(
        (str(shard.name), config.node_of(shard), config.link_of(shard), shard.weight) for shard in config.shards
    )
    return (config.slices, config.replicas, nodes, shards)


def check(old: Config, new: Config) -> None:
    """Whether `new` may follow `old`. Raises ConfigError, which says what is in the way."""
    if new.is_embedded != old.is_embedded:
        found = "one of each" if new.is_embedded else "more than one of each, or a `link`"
        wanted = "one gateway and one shard without a `link`" if old.is_embedded else "a cluster, with links"
        raise ConfigError("shards", f"{wanted}, as before: stop the tracker, then start it with another", found)
    if new.slices != old.slices:
        expected = f"{old.slices}, as before: the number is fixed when a cluster is created"
        raise ConfigError("slices", expected, str(new.slices))
    if new.version < old.version:
        expected = f"at least {old.version}, which was taken up before; to go back, give the old content a higher one"
        raise ConfigError("version", expected, str(new.version))
    _check_places(old, new)
    if new.version == old.version and shape_of(new) != shape_of(old):
        expected = f"more than {old.version}, as nodes, shards, weights or replicas are not those taken up before"
        raise ConfigError("version", expected, str(new.version))


def _check_places(old: Config, new: Config) -> None:
    """A shard of the same name is at the same place: what it holds would else be taken for another's."""
    before = {shard.name: (old.node_of(shard), old.link_of(shard)) for shard in old.shards}
    for at, shard in enumerate(new.shards):
        node, link = before.get(shard.name, (new.node_of(shard), new.link_of(shard)))
        if new.node_of(shard) != node:
            raise ConfigError(f"shards[{at}].node", _as_before(node), repr(new.node_of(shard)))
        if new.link_of(shard) != link:
            raise ConfigError(f"shards[{at}].link", _as_before(link), repr(new.link_of(shard)))


def check_departing(new: Config, names: Iterable[str], places: Mapping[str, tuple[str, bytes]]) -> None:
    """A shard that was taken out and still hands over what it holds may come back to its place, and to no other.

    names: of such shards. places: where they are. Raises ConfigError.
    """
    for at, shard in enumerate(new.shards):
        link, _ = places.get(shard.name, (new.link_of(shard), b""))
        if shard.name in names and new.link_of(shard) != link:
            expected = f"another name, as the {shard.name} at {link} still hands over what it has"
            raise ConfigError(f"shards[{at}].name", expected, repr(str(shard.name)))


def _as_before(place: str) -> str:
    return f"{place!r}, as before: a shard in another place needs another name"
