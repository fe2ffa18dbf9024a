"""What the parts of a configuration must be to each other. Raises ConfigError at the first that is not."""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING

from common.config_errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.config import Config, Gateway, Shard
    from common.values import Endpoint, LinkAddress


LEAST_WEIGHT = 0.01
RESERVED = ("cluster", "connection-id")  # NAME.key is another key file


def check(config: Config, *, keyed: bool = True) -> None:
    """All checks, what is simple first; those of keys only if `keyed`. Raises ConfigError."""
    _check_values(config)
    _check_names(config)
    _check_nodes(config)
    for node in config.node_names():
        _check_endpoints(config, node)
    if not config.is_embedded:
        _check_links(config)
        if keyed:
            _check_keys(config)


def _check_values(config: Config) -> None:
    for name, path in (("data", config.data), ("keys", config.keys)):
        if path is not None and not path.is_absolute():  # the default, of a user without a home
            raise ConfigError(name, "a directory, as a path that begins with /", repr(str(path)))
    if config.slices & (config.slices - 1):
        raise ConfigError("slices", "a power of two from 1 to 65536", str(config.slices))
    if config.peers.default > config.peers.most:
        most = config.peers.most
        raise ConfigError("peers.default", f"at most peers.most, which is {most}", str(config.peers.default))
    for kind in ("gateways", "shards"):
        if not getattr(config, kind):
            raise ConfigError(kind, "at least one", "none")
    _check_weights(config)


def _check_weights(config: Config) -> None:
    for at, shard in enumerate(config.shards):
        if 0 < shard.weight < LEAST_WEIGHT:
            expected = f"0, for a shard that is to hold nothing, or {LEAST_WEIGHT} to 100"
            raise ConfigError(f"shards[{at}].weight", expected, f"{shard.weight:g}")
    if not any(shard.weight for shard in config.shards):
        raise ConfigError("shards[0].weight", "more than 0, as no other shard has more", "0")
    most = len(config.shards) - 1
    if config.replicas > most:
        expected = "0, as there is one shard" if most == 0 else f"at most {most}, as there are {most + 1} shards"
        raise ConfigError("replicas", expected, str(config.replicas))


def _processes(config: Config) -> Iterator[tuple[str, Gateway | Shard]]:
    """Every process and its path in the file."""
    for at, gateway in enumerate(config.gateways):
        yield f"gateways[{at}]", gateway
    for at, shard in enumerate(config.shards):
        yield f"shards[{at}]", shard


def _check_names(config: Config) -> None:
    first: dict[str, str] = {}
    for path, process in _processes(config):
        where = f"{path}.name"
        if process.name in first:
            raise ConfigError(where, f"a name that is not taken, as by {first[process.name]}", repr(str(process.name)))
        first[process.name] = where
    nodes: set[str] = set()
    for at, node in enumerate(config.nodes):
        if node.name in nodes:
            raise ConfigError(f"nodes[{at}].name", "a name that no other node has", repr(str(node.name)))
        if node.name in RESERVED:
            raise ConfigError(f"nodes[{at}].name", "another name, as key files have this one", repr(str(node.name)))
        nodes.add(node.name)


def _check_nodes(config: Config) -> None:
    names = [str(node.name) for node in config.nodes]
    for path, process in _processes(config):
        if process.node is None and len(names) > 1:
            raise ConfigError(f"{path}.node", "one of " + ", ".join(names), "none")
        if process.node is not None and process.node not in names:
            expected = "one of " + ", ".join(names) if names else "no node, as `nodes` is empty"
            raise ConfigError(f"{path}.node", expected, repr(str(process.node)))


def _check_endpoints(config: Config, node: str) -> None:
    """Nobody of a node listens where another does, but for gateways that share a port."""
    listening: list[tuple[str, Endpoint]] = []
    for at, gateway in enumerate(config.gateways):
        if config.node_of(gateway) == node:
            own = [(f"gateways[{at}].listen[{index}]", endpoint) for index, endpoint in enumerate(gateway.listen)]
            for (taken_at, taken), (where, endpoint) in combinations(own, 2):
                if endpoint.clashes(taken):
                    raise ConfigError(where, f"a port that is not taken, as by {taken_at} ({taken})", endpoint)
            for taken_at, taken in listening:
                for where, endpoint in own:
                    if endpoint.clashes(taken) and endpoint != taken:
                        expected = f"a port that is not taken, as by {taken_at} ({taken}); to share it, write the same"
                        raise ConfigError(where, expected, endpoint)
            listening += own
    listening += _check_binds(config, node, listening)
    _check_admin(config, node, listening)


def _check_binds(config: Config, node: str, listening: list[tuple[str, Endpoint]]) -> list[tuple[str, Endpoint]]:
    """Where the shards of a node listen for links. Raises ConfigError if somebody listens there already."""
    own: list[tuple[str, Endpoint]] = []
    paths: dict[str, str] = {}
    for at, shard in enumerate(config.shards):
        if config.node_of(shard) != node:
            continue
        if shard.bind is not None and shard.link is None:
            raise ConfigError(f"shards[{at}].link", "where others reach the shard, as it has a `bind`", "none")
        address = shard.bind or shard.link
        endpoint = address.endpoint if address is not None else None
        where = f"shards[{at}].{'link' if shard.bind is None else 'bind'}"
        if endpoint is not None:
            for taken_at, taken in (*listening, *own):
                if endpoint.clashes(taken):
                    raise ConfigError(where, f"a port that is not taken, as by {taken_at} ({taken})", endpoint)
            own.append((where, endpoint))
        else:
            path = config.bind_of(shard)
            if path in paths:
                raise ConfigError(where, f"a path that is not taken, as by {paths[path]}", repr(path))
            paths[path] = where
    return own


def _check_admin(config: Config, node: str, listening: list[tuple[str, Endpoint]]) -> None:
    if config.admin is None:
        return
    for process in config.on_node(node):
        try:
            admin = config.admin_of(process)
        except ValueError:
            expected = "a port with room behind it for every process of a node"
            raise ConfigError("admin", expected, config.admin) from None
        for taken_at, taken in listening:
            if admin is not None and admin.clashes(taken):
                expected = f"another port than that of {taken_at} ({taken})"
                raise ConfigError("admin", expected, f"{admin} of {process.name}")


def _check_links(config: Config) -> None:
    first: dict[str, str] = {}
    nodes = {config.node_of(process) for _, process in _processes(config)}
    for at, shard in enumerate(config.shards):
        where = f"shards[{at}].link"
        link = shard.link
        if len(nodes) > 1 and (link is None or link.endpoint is None):
            expected = "tcp:// with an IP address and a port, as processes of other nodes link to it"
            raise ConfigError(where, expected, repr(str(link)) if link else "none")
        path = config.link_of(shard)
        if path.startswith("ipc://") and len(os.fsencode(path)) > 6 + 100:
            raise ConfigError(where, "a shorter path than `data` yields: at most 100 bytes", repr(path))
        if path in first:
            raise ConfigError(where, f"an address that is not taken, as by {first[path]}", repr(path))
        first[path] = where
        if shard.bind is not None and shard.bind.startswith("ipc") != path.startswith("ipc"):
            raise ConfigError(f"shards[{at}].bind", "the same transport as `link`", repr(str(shard.bind)))
        if link is not None and link.endpoint is not None and link.endpoint.address.is_unspecified:
            raise ConfigError(where, "an address that others can reach; `bind` may be a wildcard", repr(str(link)))


def _check_keys(config: Config) -> None:
    if config.has_keys:
        seen: dict[str, str] = {}
        for at, node in enumerate(config.nodes):
            if node.key is None:
                raise ConfigError(f"nodes[{at}].key", "a public key, as other nodes have one: see `shoal keys`", "none")
            if node.key in seen:
                raise ConfigError(f"nodes[{at}].key", f"a key of its own, not that of {seen[node.key]}", "the same")
            seen[node.key] = str(node.name)
        return
    for at, shard in enumerate(config.shards):
        for where, address in ((f"shards[{at}].bind", shard.bind), (f"shards[{at}].link", shard.link)):
            if address is not None and _is_open(address) and not config.insecure:
                expected = "a loopback address, or keys for all nodes (`shoal keys`), or `insecure: true`"
                raise ConfigError(where, expected, repr(str(address)))


def _is_open(address: LinkAddress) -> bool:
    endpoint = address.endpoint
    return endpoint is not None and not endpoint.address.is_loopback
