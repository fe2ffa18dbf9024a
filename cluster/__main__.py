"""`shoal`: the operator's commands. What a command needs it imports itself, so each starts fast.

Exit status: 0 done, 1 it could not be done, 2 a mistake in what was asked for.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import click

from cluster.options import duration

FILE = click.Path(path_type=Path)
CONFIG = "The configuration file; without one, the embedded default."
NODE_KEY = "The node whose key to show; without it, the first whose secret is here."
TIMEOUT = "Seconds, for all together."
INTERVAL = "Between two looks, as 1s or 0.5."
DURATION: Any = {"metavar": "DURATION", "callback": duration(0.2)}
EVENTS = click.Choice(["none", "started", "completed", "stopped", "paused"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shoal-tracker", prog_name="shoal")
def main() -> None:
    """A BitTorrent tracker that grows by adding machines."""


@main.command()
@click.option("--config", "file", type=FILE, help="The configuration file; without one, the embedded default.")
@click.option("--node", help="The node whose gateways and shards to run; only needed if the file has several.")
def up(file: Path | None, node: str | None) -> None:
    """Start the tracker, watch it, and start it again if it fails."""
    from cluster import start
    from common.config import ConfigError
    from common.keys import KeyFileError
    from gateway.listening import ListenError

    try:
        start.up(file, node)
    except (ConfigError, KeyFileError, ListenError) as error:
        fail(str(error), 2)


@main.command()
@click.argument("file", type=FILE)
@click.option("--here", is_flag=True, help="Also look whether this machine and this user can run it.")
@click.option("--node", help="With --here: the node that this machine is; only needed if the file has several.")
def check(file: Path, here: bool, node: str | None) -> None:
    """Say what a configuration file means, or what is wrong with it.

    Exit status 1: with --here, something would keep it from running.
    """
    from common import config

    faults = []
    try:
        meant = config.load(file)
        if here:
            from cluster import here as looked

            faults = looked.faults(meant, node)
    except config.ConfigError as error:
        fail(str(error), 2)
    from cluster import tables

    tables.print_meaning(file, meant)
    if here:
        click.echo("\n" + "\n".join(f"here: {line}" for line in faults or ["fine"]))
        sys.exit(1 if faults else 0)


@main.command()
@click.argument("url")
@click.argument("info_hash", metavar="INFOHASH")
@click.option("--event", type=EVENTS, default="none", show_default=True)
@click.option(
    "--left", type=click.IntRange(0, (1 << 64) - 1), default=0, help="Bytes left; 0, the default, is a seeder."
)
@click.option("--port", type=click.IntRange(0, 65535), default=6881, show_default=True, help="Where peers find you.")
@click.option(
    "--want", type=click.IntRange(-1, 1000), default=-1, help="Peers wanted; -1, the default, is the tracker's."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 60),
    default=1.0,
    show_default=True,
    help="Seconds, of three tries; HTTP has all at once.",
)
@click.option("--source", metavar="ADDRESS", help="The local address to ask from.")
def announce(
    url: str, info_hash: str, event: str, left: int, port: int, want: int, timeout: float, source: str | None
) -> None:
    """Announce to a tracker as a client would, and list the peers it gives."""
    from cluster import client

    try:
        what = client.Announce(client.parse_info_hash(info_hash), event, left, port, want)
        speaks = client_of(url)
        answer = speaks.announce(speaks.parse_url(url), what, timeout=timeout, source=source)
    except client.UsageError as error:
        fail(str(error), 2)
    except client.TrackerError as error:
        fail(str(error), 1)
    from cluster import tables

    tables.print_announced(answer)


@main.command()
@click.argument("url")
@click.argument("info_hashes", metavar="INFOHASH...", nargs=-1, required=True)
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 60),
    default=1.0,
    show_default=True,
    help="Seconds, of three tries; HTTP has all at once.",
)
@click.option("--source", metavar="ADDRESS", help="The local address to ask from.")
def scrape(url: str, info_hashes: tuple[str, ...], timeout: float, source: str | None) -> None:
    """Ask a tracker how many peers torrents have."""
    from cluster import client

    try:
        hashes = [client.parse_info_hash(text) for text in info_hashes]
        speaks = client_of(url)
        answers = speaks.scrape(speaks.parse_url(url), hashes, timeout=timeout, source=source)
    except client.UsageError as error:
        fail(str(error), 2)
    except client.TrackerError as error:
        fail(str(error), 1)
    from cluster import tables

    tables.print_scraped(hashes, answers)


@main.command()
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--node", help=NODE_KEY)
@click.option("--timeout", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help=TIMEOUT)
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--interval", help=f"{INTERVAL} With --watch alone; without it, 1s.", **DURATION)
@click.option("--full", is_flag=True, help="Exit status 1 also while shards still fill slices: for scripts.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs; with --watch a document a line.")
def status(
    file: Path | None,
    node: str | None,
    timeout: float,
    watch: bool,
    interval: float | None,
    full: bool,
    as_json: bool,
) -> None:
    """Say how the whole cluster is: processes, slices, peers, links, who is silent.

    Exit status 1: somebody is silent or not well.
    """
    from cluster import status as asked
    from cluster import status_tables, watching
    from cluster.followed import Followed
    from common import config
    from common.keys import KeyFileError

    if interval is not None and not watch:
        fail("--interval: expected --watch beside it, found none", 2)
    try:
        followed = Followed(file)
        if watch:
            (watching.watch_as_json if as_json else watching.watch)(followed, node, timeout, interval or 1.0)
        look = asked.look_at(followed.config, node, timeout)
    except (config.ConfigError, KeyFileError) as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        sys.exit(0 if watch else 130)
    if as_json:
        click.echo(json.dumps(look, indent=2))
    elif followed.config.is_embedded:
        status_tables.print_embedded(look)
    else:
        status_tables.print_status(str(file), look)
    fills = full and any(asked.to_fill(shard)[0] for shard in look.get("shards", ()))
    sys.exit(0 if look["ok"] and not fills else 1)


@main.command()
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--node", help=NODE_KEY)
@click.option("--timeout", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help=TIMEOUT)
@click.option("--interval", default="1s", show_default=True, help=INTERVAL, **DURATION)
@click.option("--once", is_flag=True, help="Look twice, print what happened between, and end.")
def top(file: Path | None, node: str | None, timeout: float, interval: float, once: bool) -> None:
    """Show what gateways and shards do at present, until q or Ctrl-C."""
    from cluster import top as shown
    from cluster.followed import Followed
    from common.config import ConfigError
    from common.keys import KeyFileError

    try:
        shown.run(Followed(file), node, timeout, interval, once=once)
    except (ConfigError, KeyFileError) as error:
        fail(str(error), 2)
    except KeyboardInterrupt:
        sys.exit(0)


@main.command()
@click.argument("new", metavar="NEW", type=FILE)
@click.option("--config", "file", type=FILE, help="The file by which the cluster runs; without it, what shards say.")
@click.option("--node", help=NODE_KEY)
@click.option("--timeout", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help=TIMEOUT)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(new: Path, file: Path | None, node: str | None, timeout: float, as_json: bool) -> None:
    """Say what an edited file would move, before anything happens.

    Exit status 1: peers would be lost, somebody is silent, or memory may not suffice. 2: it would be refused.
    """
    from cluster import plan as planned
    from cluster import plan_tables
    from common import config
    from common.keys import KeyFileError

    try:
        old = config.load(file) if file else None
        told = planned.plan(old, config.load(new), node, timeout)
    except (config.ConfigError, KeyFileError) as error:
        fail_of(new, error)
    except KeyboardInterrupt:
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        plan_tables.print_plan(new, file, told)
    sys.exit(0 if told["ok"] else 1)


@main.command()
@click.argument("shard")
@click.option("--config", "file", type=FILE, required=True, help="The configuration file.")
@click.option("--node", help=NODE_KEY)
@click.option("--timeout", help="How long to wait, as 10m; without it, for as long as it takes.", **DURATION)
def drain(shard: str, file: Path, node: str | None, timeout: float | None) -> None:
    """Wait until a shard of weight 0 holds nothing any longer, so that it may be removed.

    Exit status 1: the time was over before.
    """
    from cluster import drain as drained
    from cluster.followed import Followed
    from common.config import ConfigError
    from common.keys import KeyFileError

    try:
        left = drained.drain(Followed(file), shard, node, timeout)
    except (ConfigError, KeyFileError) as error:
        fail_of(file, error)
    except KeyboardInterrupt:
        sys.exit(130)
    if left:
        fail(f"it may not be removed yet: {left}", 1)


@main.command()
@click.argument("info_hash", metavar="INFOHASH")
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--node", help=NODE_KEY)
@click.option("--timeout", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help=TIMEOUT)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def find(info_hash: str, file: Path | None, node: str | None, timeout: float, as_json: bool) -> None:
    """Say which shards keep a torrent, and how many peers each has of it.

    Exit status 1: a shard is silent.
    """
    from cluster import find as asked
    from cluster import status_tables
    from cluster.client import UsageError
    from common import config
    from common.keys import KeyFileError

    try:
        wanted = config.load(file) if file else config.read(None)
        found = asked.find(wanted, node, asked.parse_info_hash(info_hash), timeout)
    except (config.ConfigError, KeyFileError, UsageError) as error:
        fail(str(error), 2)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        status_tables.print_found(found)
    sys.exit(0 if all(shard["heard"] for shard in found["shards"]) else 1)


@main.command()
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--node", help="The node whose processes to ask; only needed if the file has several.")
@click.option("--timeout", type=click.FloatRange(0.01, 60), default=2.0, show_default=True, help=TIMEOUT)
def health(file: Path | None, node: str | None, timeout: float) -> None:
    """Ask the processes of a node whether all is well; print what is not.

    Exit status 1: something is not.
    """
    from cluster import health as asked
    from common import config

    try:
        faults = asked.check(config.load(file) if file else config.read(None), node, timeout)
    except config.ConfigError as error:
        fail(str(error), 2)
    for line in faults:
        click.echo(line)
    sys.exit(1 if faults else 0)


@main.group()
def keys() -> None:
    """Make, list and rotate the key files of a cluster."""


@keys.command("make")
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--node", help="Make this node's keys only, and not those that nodes share.")
def make_keys(file: Path | None, node: str | None) -> None:
    """Make the key files that are missing, and print the public keys for the configuration file.

    Nothing is ever replaced. Exit status 1: the file has another public key for a node.
    """
    from cluster import key_command
    from common.config import ConfigError
    from common.keys import KeyFileError

    try:
        lines, fine = key_command.make(key_command.configuration(file), node)
    except (ConfigError, KeyFileError, key_command.NodeError) as error:
        fail(str(error), 2)
    click.echo("\n".join(lines))
    sys.exit(0 if fine else 1)


@keys.command("list")
@click.option("--config", "file", type=FILE, help=CONFIG)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_keys(file: Path | None, as_json: bool) -> None:
    """Say which key files are there, and whether they agree with the configuration file.

    Exit status 1: the cluster cannot work with them.
    """
    from cluster import key_command
    from common.config import ConfigError
    from common.keys import KeyFileError

    try:
        wanted = key_command.configuration(file)
        found = key_command.listed(wanted)
    except (ConfigError, KeyFileError) as error:
        fail(str(error), 2)
    from cluster import tables

    tables.print_keys(wanted.key_directory, found, as_json=as_json)
    sys.exit(1 if any(key.wrong for key in found) else 0)


@keys.command("rotate")
@click.option("--config", "file", type=FILE, help=CONFIG)
def rotate_keys(file: Path | None) -> None:
    """Replace the key of connection ids; ids made with the one before stay good."""
    from cluster import key_command
    from common.config import ConfigError
    from common.keys import KeyFileError

    try:
        lines = key_command.rotate(key_command.configuration(file))
    except (ConfigError, KeyFileError) as error:
        fail(str(error), 2)
    click.echo("\n".join(lines))


def client_of(url: str) -> ModuleType:
    """The module that speaks a URL's protocol: parse_url, announce, scrape."""
    if url.lower().startswith("http:"):
        from cluster import http_client

        return http_client
    from cluster import client

    return client


def fail_of(file: Path, error: Exception) -> NoReturn:
    """Tell of a mistake in a file, by its name if the error does not have it, or in what was asked for."""
    where = getattr(error, "where", "--")
    named = where.startswith("--") or getattr(error, "file", "")
    fail(str(error) if named else f"{file}: {error}", 2)


def fail(message: str, status: int) -> NoReturn:
    """Tell the operator in one line, and end."""
    click.echo(f"shoal: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
