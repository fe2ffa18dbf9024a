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

from cluster import privileges, supervisor
from common import config, logs
from common.config import Config, ConfigError, Gateway, Shard
from gateway import listening

log = logging.getLogger("shoal")


def up(file: Path | None, node: str | None = None) -> NoReturn:
    """Become the supervisor of what the file, or the embedded default, assigns to a node.

    Raises ConfigError, KeyFileError or ListenError before anything runs.
    """
    wanted = config.load(file) if file else default()
    try:
        node = choose_node(wanted, node)
        user = privileges.find_user(wanted)
        logs.set_up(wanted.log.level, wanted.log.format)
        privileges.make_files(wanted, node, user)
        lock = None if wanted.is_embedded else privileges.lock(wanted, node, user)
    except ConfigError as error:
        error.file = str(file or "")
        raise
    listening.allow_files()
    workers = open_all(wanted, node)
    if wanted.user is None and os.geteuid() == 0:
        log.warning("workers run as root: a `user` in the configuration would have less to lose")
    # A signal that comes during the exec waits for the supervisor.
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.WATCHED)
    log_as = {"level": wanted.log.level, "format": wanted.log.format}
    plan = {**log_as, "lock": lock, "user": user and user._asdict(), "workers": workers}
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
    if wanted.is_embedded:
        return [worker("tracker", ["-m", "cluster.embedded"], wanted, wanted.gateways[0])]
    return [
        worker(process.name, ["-m", module(process), "--name", process.name], wanted, process)
        for process in wanted.on_node(node)
    ]


def worker(name: str, arguments: list[str], wanted: Config, process: Gateway | Shard) -> dict[str, Any]:
    """A worker as the supervisor has it described."""
    opened = listening.open_sockets(wanted, process) if isinstance(process, Gateway) else []
    return {"name": name, "arguments": arguments, "fds": [sock.detach() for sock in opened]}


def module(process: Gateway | Shard) -> str:
    """The module that runs a process."""
    return "gateway" if isinstance(process, Gateway) else "shard"


def config_file(wanted: Config) -> int:
    """A descriptor of an unnamed file that holds the encoded configuration."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("shoal-config")
    else:
        with TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.write(fd, config.encode(wanted))
    return fd


def become_supervisor(plan: dict[str, Any], config_fd: int) -> NoReturn:
    """Never returns; cluster/supervisor.py says what a plan is."""
    kept = [config_fd, *(fd for each in plan["workers"] for fd in each["fds"])]
    for fd in kept if plan["lock"] is None else [*kept, plan["lock"]]:
        os.set_inheritable(fd, True)
    words = ["-m", "cluster.supervisor", json.dumps(plan | {"config_fd": config_fd})]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", *words])
