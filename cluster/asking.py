"""An operator's links: a command asks all shards at once and waits a little. Blocking; no event loop.

Shards let in whoever has a node's key, so a command needs to run where one is. See common/frames.py for the frames.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from common import keys, links
from common.config_errors import ConfigError
from common.control import FrameError
from common.keys import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.config import Config
    from common.links import KeyPair

TIMEOUT = 2.0  # seconds, for all shards together
EVENTS = int(
    zmq.Event.CONNECTED
    | zmq.Event.CONNECT_RETRIED
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


class Talk(Protocol):
    """What is said to one shard, and what is heard of it."""

    done: bool

    def begin(self) -> bytes:
        """The first frame."""

    def hear(self, frame: memoryview) -> bytes | None:
        """Take a frame of the shard; what to say to it next. Raises FrameError if it makes no sense."""


def talk_to_shards(config: Config, mine: KeyPair | None, talks: Sequence[Talk], timeout: float) -> list[str]:
    """Talk to all shards at once, in the order of the configuration. For each why it was not finished, or ""."""
    with contextlib.closing(Lines(config, mine, talks)) as lines:
        lines.wait(timeout)
        return [line.why() for line in lines.lines]


class Line:
    """The link to one shard, and how far it came."""

    def __init__(self, context: links.Context, address: str, keyed: tuple[KeyPair | None, bytes], talk: Talk) -> None:
        self.address = address
        self.talk = talk
        self.begun = False
        self.nonsense = ""
        self.connected = self.retried = self.refused = self.failed = False
        self.sock = links.connect(context, address, *keyed)
        self.monitor = self.sock.get_monitor_socket(EVENTS)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to say."""
        return self.talk.done or bool(self.nonsense)

    def wants(self) -> int:
        """What to wait for."""
        return int(zmq.POLLIN if self.begun else zmq.POLLIN | zmq.POLLOUT)

    def go_on(self, ready: int) -> None:
        """Say and hear what can be."""
        if ready & zmq.POLLOUT and not self.begun:
            self.begun = True
            self._say(self.talk.begin())
        while ready & zmq.POLLIN and not self.over:
            try:
                frame = self.sock.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._say(self.talk.hear(memoryview(frame)))
            except FrameError as error:
                self.nonsense = str(error)

    def note(self) -> None:
        """Take what became of the connection."""
        event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
        if event == zmq.Event.CONNECTED:  # it may have been there before the monitor was
            self.connected = True
        elif event == zmq.Event.CONNECT_RETRIED:
            self.retried = True
        elif event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            self.refused = True
        else:
            self.failed = True

    def why(self) -> str:
        """Why the talk is not done; empty if it is."""
        if self.talk.done:
            return ""
        if self.nonsense:
            return f"what {self.address} answers makes no sense: {self.nonsense}"
        if self.begun:  # ZeroMQ takes nothing to send before the handshake is done
            return f"no answer from {self.address}"
        return self._why_no_link()

    def _why_no_link(self) -> str:
        if self.refused:
            return f"{self.address} refuses this node's key"
        if self.failed:
            return f"{self.address} has another key than the configuration says"
        if self.retried and not self.connected:
            return f"no connection to {self.address}"
        return f"no handshake with {self.address}: it stands still or is out of reach"

    def close(self) -> None:
        """End it."""
        self.sock.disable_monitor()
        self.monitor.close(0)
        self.sock.close(0)

    def _say(self, frame: bytes | None) -> None:
        if frame is not None:
            with contextlib.suppress(zmq.Again):  # it is gone, which shows soon
                self.sock.send(frame, zmq.NOBLOCK)


class Lines:
    """The links to all shards."""

    def __init__(self, config: Config, mine: KeyPair | None, talks: Sequence[Talk]) -> None:
        self.context: links.Context = zmq.Context()
        self.lines = [
            Line(self.context, address, (mine, theirs), talk)
            for (address, theirs), talk in zip(links.addresses(config).values(), talks, strict=True)
        ]

    def wait(self, timeout: float) -> None:
        """Until all is said, or the time is over."""
        deadline = time.monotonic() + timeout
        while talking := [line for line in self.lines if not line.over]:
            poller = zmq.Poller()
            for line in talking:
                poller.register(line.sock, line.wants())
                poller.register(line.monitor, zmq.POLLIN)
            left = deadline - time.monotonic()
            ready = dict(poller.poll(max(0, round(1000 * left))))
            for line in talking:
                if line.monitor in ready:
                    line.note()
                if line.sock in ready:
                    line.go_on(ready[line.sock])
            if left <= 0:
                return

    def close(self) -> None:
        """End all."""
        for line in self.lines:
            line.close()
        self.context.destroy(0)


def key_of(config: Config, node: str | None) -> KeyPair | None:
    """The key to show: that of `node`, or of the first node whose secret is here; None if none is needed.

    Raises ConfigError if there is no such node, KeyFileError.
    """
    if node is not None and node not in config.node_names():
        expected = "one of " + ", ".join(config.node_names()) if config.nodes else "none, as `nodes` is empty"
        raise ConfigError("--node", expected, repr(node))
    if not config.has_keys or not any(links.is_encrypted(address) for address, _ in links.addresses(config).values()):
        return None
    directory = config.key_directory
    names = [node] if node is not None else config.node_names()
    for name in names:
        if node is not None or os.path.lexists(keys.node_path(directory, name)):
            return links.key_pair(keys.node_key(config, name))
    wanted = ", ".join(f"{name}.key" for name in names)
    raise KeyFileError(f"{directory}: no secret of a node can be seen here, expected one of {wanted}")
