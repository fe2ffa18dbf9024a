"""The reader of an edited configuration: a child of the supervisor, which it tells what the file means now.

    python -P -m cluster.reload REQUEST

REQUEST is JSON: level, format, user and node of the supervisor's plan; file; config_fd, from which workers read;
channel, to the supervisor; workers: name, kind, leaving and fds. cluster/watch.py has the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import privileges, start, taken_up, watch
from cluster.worker import User
from common import config, config_source, logs, uptake
from common.config import Gateway
from common.config_errors import ConfigError
from common.keys import KeyFileError
from common.sockets import is_shared, share
from gateway import listening
from gateway.listening import ListenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from common.config import Config

log = start.log


class Reader:
    """Reads a file for the node that a request describes."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.file = Path(request["file"])
        self.node: str = request["node"]
        self.user = User(**request["user"]) if request["user"] else None
        self.running = config_source.read(request["config_fd"]).config
        self.staying = {(each["name"], each["kind"]) for each in request["workers"] if not each["leaving"]}
        self.leaving = {each["name"]: each["place"] for each in request["workers"] if each["leaving"]}
        held = [(each["name"], each["leaving"], each["fds"]) for each in request["workers"]]
        self.held = [(name, leaving, [socket.socket(fileno=fd) for fd in fds]) for name, leaving, fds in held]

    def read(self) -> tuple[dict[str, Any], list[socket.socket]]:
        """The answer, and the sockets of new gateways."""
        try:
            taken, new = self.look()
            opened = self.open(taken)
        except (ConfigError, KeyFileError, ListenError) as error:
            if isinstance(error, ConfigError):
                error.file = str(self.file)
            return {"refused": str(error), "workers": []}, []
        taken_up.note(taken, self.node, self.user)
        if later := uptake.later(taken, new):
            log.info("%s: takes effect at the next start of `shoal up`: %s", self.file, ", ".join(later))
        workers = [
            {**start.describe(taken, process), "sockets": len(opened.get(process.name, ()))}
            for process in start.processes(taken, self.node)
        ]
        sockets = [sock for each in opened.values() for sock in each]
        return {"refused": "", "config": start.document(taken), "workers": workers}, sockets

    def look(self) -> tuple[Config, Config]:
        """What is to be taken up, and what the file says. Raises ConfigError, KeyFileError."""
        try:
            old = config.read(self.running)
        except ConfigError as error:
            raise ConfigError("", "a new start, as the tracker runs in another version of Shoal", str(error)) from None
        new = config.load(self.file)
        taken = uptake.taken_up(old, new, self.node)
        self.check_places(taken)
        if not taken.is_embedded and taken.on_node(self.node):
            with privileges.acting_as(self.user):
                privileges.load_keys(taken, self.node)
        return taken, new

    def check_places(self, taken: Config) -> None:
        """A shard that is about to leave may stay, but not elsewhere. Raises ConfigError."""
        for at, shard in enumerate(taken.shards):
            before = self.leaving.get(str(shard.name), {}) if taken.node_of(shard) == self.node else {}
            for name, now in start.place(taken, shard).items():
                if before.get(name, now) != now:
                    expected = f"{before[name]!r}, as before, until the shard of that name has ended"
                    raise ConfigError(f"shards[{at}].{name}", expected, repr(now))

    def open(self, taken: Config) -> dict[str, list[socket.socket]]:
        """The sockets of gateways that are new, in the order of their workers. Raises ListenError."""
        gateways = [] if taken.is_embedded else [one for one in taken.on_node(self.node) if isinstance(one, Gateway)]
        new = [gateway for gateway in gateways if (gateway.name, "gateway") not in self.staying]
        with self.beside(), contextlib.ExitStack() as failed:
            opened = {}
            for gateway in new:
                opened[str(gateway.name)] = listening.open_sockets(taken, gateway, beside=True)
                for sock in opened[gateway.name]:
                    failed.callback(sock.close)
            failed.pop_all()
        stay = {name: sockets for name, leaving, sockets in self.held if sockets and not leaving}
        for gateway in gateways:
            if sockets := opened.get(gateway.name) or stay.get(gateway.name):
                listening.set_shared(taken, gateway, sockets)
        return opened

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Let sockets be bound where those of the supervisor are: who had a port alone may leave, or share it now."""
        before = [(sock, is_shared(sock)) for _, _, sockets in self.held for sock in sockets]
        for sock, _ in before:
            share(sock, True)
        try:
            yield
        finally:
            for sock, shared in before:
                share(sock, shared)


def answer(channel: socket.socket, told: dict[str, Any], sockets: Sequence[socket.socket]) -> None:
    """Send descriptors: of a file with the answer, then those of the sockets."""
    fd = start.unnamed_file()
    os.write(fd, json.dumps(told).encode())
    fds = [fd, *(sock.fileno() for sock in sockets)]
    for at in range(0, len(fds), watch.MOST_FDS):
        socket.send_fds(channel, [b"+"], fds[at : at + watch.MOST_FDS])


def main(words: Sequence[str]) -> int:
    """Exit code 0 once the supervisor has an answer."""
    request = json.loads(words[0])
    signal.alarm(int(watch.PATIENCE) + 1)  # ends this process, should nobody be left to do that
    logs.set_up(request["level"], request["format"], process="supervisor")
    with socket.socket(fileno=request["channel"]) as channel:
        answer(channel, *Reader(request).read())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
