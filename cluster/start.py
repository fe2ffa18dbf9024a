"""`shoal up`, first half: all that can go wrong with what the operator wrote, then the supervisor takes over.

1. The configuration is read and checked, the keys are made or read, the sockets are opened.
2. This process becomes the supervisor: `exec`, same pid, sockets and encoded configuration inherited. What
   step 1 imported (YAML, msgspec, click) would else stay in memory for as long as the tracker runs.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn

from cluster import privileges, supervisor, taken_up
from common import config, config_source, logs
from common.config import Config, ConfigError, Gateway, Shard
from gateway import listening

log = logging.getLogger("shoal")


def up(file: Path | None, node: str | None = None) -> NoReturn:
    """Become the supervisor of what the file, or the embedded default, assigns to a node.

    Raises ConfigError, KeyFileError or ListenError before anything runs.
    """
    stamp = config_source.stamp(file) if file else None
    wanted = config.load(file) if file else default()
    try:
        node = choose_node(wanted, node)
        user = privileges.find_user(wanted)
        logs.set_up(wanted.log.level, wanted.log.format)
        privileges.make_files(wanted, node, user)
        lock = None if wanted.is_embedded else privileges.lock(wanted, node, user)
        if doubt := taken_up.check(wanted, node, user):
            log.warning("%s", doubt)
    except ConfigError as error:
        error.file = str(file or "")
        raise
    listening.allow_files()
    workers = open_all(wanted, node)
    taken_up.note(wanted, node, user)
    if wanted.user is None and os.geteuid() == 0:
        log.warning("workers run as root: a `user` in the configuration would have less to lose")
    # A signal that comes during the exec waits for the supervisor.
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.WATCHED)
    plan = {
        "level": wanted.log.level,
        "format": wanted.log.format,
        "lock": lock,
        "user": user and user._asdict(),
        "node": node,
        "file": os.path.abspath(file) if file and stamp else None,  # not a pipe, say, which cannot be read again
        "stamp": stamp,
        "workers": workers,
    }
    become_supervisor(plan, config_file(wanted))


def default() -> Config:
    """The configuration of who gives none, fit for this machine. Raises ConfigError."""
    wanted = config.read(None)
    return wanted if listening.has_ipv6() else listening.without_ipv6(wanted)


def choose_node(wanted: Config, node: str | None) -> str:
    """The node that is asked for, or the only one. Raises ConfigError if there is none such, or nothing to run."""
    names = wanted.node_names()
    if node is None and len(names) == 1:
        node = names[0]
    elif node is None or node not in names or not node:
        expected = "one of " + ", ".join(names) if wanted.nodes else "none, as the configuration has no nodes"
        raise ConfigError("--node", expected, "none" if node is None else repr(node))
    if not wanted.on_node(node):
        raise ConfigError("", f"a gateway or a shard of node {node}", "none")
    return node


def open_all(wanted: Config, node: str) -> list[dict[str, Any]]:
    """What the supervisor is to run, with the sockets opened. Raises ListenError."""
    workers = []
    for process in processes(wanted, node):
        opened = listening.open_sockets(wanted, process) if isinstance(process, Gateway) else []
        workers.append({**describe(wanted, process), "fds": [sock.detach() for sock in opened]})
    return workers


def processes(wanted: Config, node: str) -> list[Gateway | Shard]:
    """What has a worker of its own on a node; a gateway stands for the embedded tracker."""
    return [wanted.gateways[0]] if wanted.is_embedded else wanted.on_node(node)


def describe(wanted: Config, process: Gateway | Shard) -> dict[str, Any]:
    """A worker as the supervisor has it described, but for its sockets."""
    if wanted.is_embedded:
        return {"name": "tracker", "kind": "tracker", "arguments": ["-m", "cluster.embedded"]}
    described = {"name": process.name, "arguments": ["-m", module(process), "--name", process.name]}
    if isinstance(process, Gateway):
        return {**described, "kind": "gateway"}
    return {**described, "kind": supervisor.SHARD, "place": place(wanted, process)}


def place(wanted: Config, shard: Shard) -> dict[str, str]:
    """Where others reach a shard, and where it listens."""
    return {"link": wanted.link_of(shard), "bind": wanted.bind_of(shard)}


def module(process: Gateway | Shard) -> str:
    """The module that runs a process."""
    return "gateway" if isinstance(process, Gateway) else "shard"


def config_file(wanted: Config) -> int:
    """A descriptor of an unnamed file from which workers read the configuration."""
    fd = unnamed_file()
    config_source.write(fd, document(wanted))
    return fd


def document(wanted: Config) -> Any:
    """A configuration as JSON has it."""
    return json.loads(config.encode(wanted))


def unnamed_file() -> int:
    """A descriptor of one."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shoal-config")
    with TemporaryFile() as file:
        return os.dup(file.fileno())


def become_supervisor(plan: dict[str, Any], config_fd: int) -> NoReturn:
    """Never returns; cluster/supervisor.py says what a plan is."""
    kept = [config_fd, *(fd for each in plan["workers"] for fd in each["fds"])]
    for fd in kept if plan["lock"] is None else [*kept, plan["lock"]]:
        os.set_inheritable(fd, True)
    words = ["-m", "cluster.supervisor", json.dumps(plan | {"config_fd": config_fd})]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", *words])
