"""What the operator's commands print, as tables."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from cluster.client import Announced, Scraped
from cluster.console import make_console
from cluster.key_command import KeyFile
from common.config import Bucket, Config, Shard
from common.ring import Ring, ring_of
from common.units import format_duration


def print_meaning(file: Path, config: Config) -> None:
    """What a configuration file means, value by value."""
    table = _table("setting", "meaning")
    for name, meaning in meanings(config):
        table.add_row(name, Text(meaning))
    console = make_console()
    console.print(f"{file}: fine (version {config.version})", markup=False, soft_wrap=True)
    if not config.is_embedded:
        processes = _table("node", "process", "admin", "what it does")
        for row in running(config):
            processes.add_row(*map(Text, row))
        console.print(processes)
    console.print(table)


def meanings(config: Config) -> list[tuple[str, str]]:
    """Pairs of a setting's name and what it means in words."""
    ids, limits, http = config.connection_ids, config.limits, config.http
    return [
        *(_embedded(config) if config.is_embedded else _cluster(config)),
        ("interval", f"{config.interval} between announces; a peer is listed for {format_duration(config.lifetime)}"),
        ("peers", f"{config.peers.default} in an answer, at most {config.peers.most}"),
        ("connection ids", f"good for {format_duration(ids.window * ids.windows)} at least; {_invalid(config)}"),
        ("connects", _bucket(limits.connects)),
        ("announces, scrapes", _bucket(limits.requests)),
        (
            "HTTP connections",
            f"{http.connections}, {http.per_source} of one source; closed after {http.idle} of silence",
        ),
        ("stored of a source", f"{limits.new_swarms} new swarms a minute, {limits.entries} peers"),
        ("never refused", _list(limits.exempt) or "nobody"),
        ("IP field trusted of", _list(config.trust_ip_field) or "nobody"),
        ("X-Forwarded-For trusted of", _list(config.trusted_proxies) or "nobody"),
        ("log", _log(config)),
    ]


def running(config: Config) -> list[tuple[str, str, str, str]]:
    """What runs on each node: node, process, admin address, what it does."""
    ring = ring_of(config)
    shares = [share(ring, at) for at in range(len(config.shards))]
    shards = {shard.name: _shard(config, shard, shares[at]) for at, shard in enumerate(config.shards)}
    rows = []
    for node in config.node_names():
        for process in config.on_node(node):
            admin = str(config.admin_of(process) or "none")
            if isinstance(process, Shard):
                rows.append((node or "-", f"shard {process.name}", admin, shards[process.name]))
            else:
                does = f"listens on {_list(process.listen)} (UDP and HTTP)"
                rows.append((node or "-", f"gateway {process.name}", admin, does))
    return rows


def share(ring: Ring, shard: int) -> str:
    """Which part of all slices a shard owns, and keeps."""
    owned = len(ring.slices_of(shard))
    text = f"{owned} of {ring.slices} slices ({owned / ring.slices:.1%})"
    if ring.members < 2:
        return text
    kept = len(ring.held_by(shard))
    return f"{text}, with replicas {kept} ({kept / ring.slices:.1%})"


def print_keys(directory: Path, found: Sequence[KeyFile], *, as_json: bool) -> None:
    """The key files in a directory; as a table or as JSON."""
    if as_json:
        print(json.dumps({"directory": str(directory), "files": [asdict(key) for key in found]}, indent=2))
        return
    table = _table("file", "mode", "public key", "state")
    for column in table.columns[:3]:
        column.no_wrap = True  # they are copied from here
    for key in found:
        table.add_row(*(Text(value or "-") for value in (key.file, key.mode, key.public, key.state)))
    console = make_console()
    console.print(f"{directory}:", markup=False, soft_wrap=True)
    console.print(table)


def print_announced(answer: Announced) -> None:
    """The answer to an announce: a line of counts, then the peers."""
    console = make_console()
    counts = f"seeders: {answer.seeders}, leechers: {answer.leechers}, peers in this answer: {len(answer.peers)}"
    console.print(f"{counts}, next announce in: {format_duration(answer.interval)}", soft_wrap=True)
    table = _table("address", "port")
    for address, port in answer.peers:
        table.add_row(address, str(port))
    if answer.peers:
        console.print(table)


def print_scraped(info_hashes: Sequence[bytes], answers: Sequence[Scraped]) -> None:
    """The answer to a scrape, a row for each torrent."""
    table = _table("info-hash")
    for name in ("seeders", "leechers", "completed"):
        table.add_column(name, justify="right")
    for info_hash, counts in zip(info_hashes, answers, strict=True):
        table.add_row(info_hash.hex(), str(counts.seeders), str(counts.leechers), str(counts.completed))
    make_console().print(table)


def _embedded(config: Config) -> list[tuple[str, str]]:
    gateway, shard = config.gateways[0], config.shards[0]
    return [
        (f"gateway {gateway.name}", f"listens on {_list(gateway.listen)} (UDP and HTTP)"),
        (f"shard {shard.name}", f"stores at most {shard.memory}, weight {shard.weight:g}, in {config.slices} slices"),
        ("admin", f"http://{config.admin} (metrics, health)" if config.admin else "none"),
        ("data", f"key files in {config.key_directory}"),
    ]


def _cluster(config: Config) -> list[tuple[str, str]]:
    secrecy = "encrypted, by the nodes' keys" if config.has_keys else "in clear, as nodes have no keys"
    return [
        *([("tcp:// links", secrecy)] if any(shard.link and shard.link.endpoint for shard in config.shards) else []),
        ("user", f"workers run as {config.user}" if config.user else "workers run as whoever starts them"),
        ("slices", kept_by(config)),
        ("data", str(config.data)),
        ("key files", f"in {config.key_directory}"),
    ]


def kept_by(config: Config) -> str:
    """By how many shards each slice is kept."""
    members = ring_of(config).members
    wanted = 1 + config.replicas
    few = f", as no more have a weight; {wanted} are asked for" if members < wanted else ""
    return f"{config.slices}, each kept by {members} shard{'' if members == 1 else 's'}{few}"


def _shard(config: Config, shard: Shard, share: str) -> str:
    """Where a shard is reached, and what it has to keep."""
    link, bind = config.link_of(shard), config.bind_of(shard)
    secrecy = "on this machine alone" if link.startswith("ipc") else "encrypted" if config.has_keys else "in clear"
    place = f"{link} ({secrecy}" + (f", listens on {bind})" if bind != link else ")")
    return f"{place}; {share}, weight {shard.weight:g}; at most {shard.memory}"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _list(values: Sequence[str]) -> str:
    return ", ".join(values)


def _bucket(bucket: Bucket) -> str:
    return f"{bucket.rate} a second from one source, {bucket.burst} at once"


def _invalid(config: Config) -> str:
    if not config.connection_ids.answer_invalid:
        return "requests with another are not answered"
    return f"requests with another get an error, {config.limits.errors} a second in all"


def _log(config: Config) -> str:
    addresses = "with" if config.log.addresses else "without"
    figures = f"figures every {config.log.figures}" if config.log.figures else "no figures"
    return f"{config.log.level} and worse, {config.log.format}, {addresses} client addresses; {figures}"
