"""What the operator's commands print, as tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cluster.client import Announced, Scraped
from common.config import Bucket, Config
from common.units import format_duration


def print_meaning(file: Path, config: Config) -> None:
    """What a configuration file means, value by value."""
    table = _table("setting", "meaning")
    for name, meaning in meanings(config):
        table.add_row(name, meaning)
    console = Console()
    console.print(f"{file}: fine (version {config.version})", highlight=False, markup=False, soft_wrap=True)
    console.print(table)


def meanings(config: Config) -> list[tuple[str, str]]:
    """Pairs of a setting's name and what it means in words."""
    gateway, shard = config.gateways[0], config.shards[0]
    ids, limits, http = config.connection_ids, config.limits, config.http
    return [
        (f"gateway {gateway.name}", f"listens on {_list(gateway.listen)} (UDP and HTTP)"),
        (f"shard {shard.name}", f"stores at most {shard.memory}, weight {shard.weight:g}, in {config.slices} slices"),
        ("admin", f"http://{config.admin} (metrics, health)" if config.admin else "none"),
        ("data", f"key files in {config.data}"),
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


def print_announced(answer: Announced) -> None:
    """The answer to an announce: a line of counts, then the peers."""
    console = Console()
    counts = f"seeders: {answer.seeders}, leechers: {answer.leechers}, peers in this answer: {len(answer.peers)}"
    console.print(f"{counts}, next announce in: {format_duration(answer.interval)}", highlight=False, soft_wrap=True)
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
    Console().print(table)


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
