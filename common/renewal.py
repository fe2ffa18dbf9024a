"""How a worker's configuration is renewed while it runs: by its supervisor, or by its own file if it has none."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from common import config, config_source, uptake
from common.config_errors import ConfigError
from common.config_source import TornError
from common.ring import ring_of

if TYPE_CHECKING:
    from pathlib import Path

    from common.config import Config
    from common.config_source import Given
    from common.process import Worker

log = logging.getLogger(__name__)

LARGE = 1 << 18  # shards times slices of which a ring takes some hundred milliseconds
EVERY = 1.0  # seconds between two looks


class Offer(NamedTuple):
    """What a source has: a configuration to be taken up, if any, and why the file is not taken up, if so."""

    config: Config | None
    refused: str


class Source(Protocol):
    """Where a configuration comes from."""

    def first(self) -> Config:
        """That of the start. Raises ConfigError, TornError."""

    def offer(self, running: Config, node: str, *, asked: bool) -> Offer | None:
        """What is new there for processes of a node that have one; None if nothing is. Raises TornError."""


class Handed:
    """What the supervisor hands over: it has checked it, and logged what waits for the next start."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.mark = b""

    def first(self) -> Config:
        """That of the start. Raises ConfigError, TornError."""
        return config.read(self._read().config)

    def offer(self, running: Config, node: str, *, asked: bool) -> Offer | None:
        """What was handed over since. Raises TornError."""
        if config_source.mark(self.fd) == self.mark:
            return None
        given = self._read()
        try:
            return Offer(config.read(given.config), given.refused)
        except ConfigError as error:  # another version of Shoal was installed meanwhile
            log.error("the configuration is not taken up: %s", error)
            return Offer(None, str(error))

    def _read(self) -> Given:
        mark = config_source.mark(self.fd)  # before: what is written meanwhile is read again
        given = config_source.read(self.fd)
        self.mark = mark
        return given


class OwnFile:
    """The file of a worker that was started by hand.

    An edit is not read before it was the same at two looks: half a file may mean something, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamp: tuple[int, ...] | None = None
        self.seen: tuple[int, ...] | None = None  # at the last look

    def first(self) -> Config:
        """That of the start. Raises ConfigError."""
        self.stamp = config_source.stamp(self.path)
        return config.load(self.path)

    def offer(self, running: Config, node: str, *, asked: bool) -> Offer | None:
        """What was written since, or is there if somebody asks to look again. A file that is gone may come back."""
        stamp, before = config_source.stamp(self.path), self.seen
        self.seen = stamp
        if not asked and (stamp in (None, self.stamp) or stamp != before):
            return None
        if stamp is None and self.path.exists():  # a pipe, which cannot be read again
            return None
        self.stamp = stamp
        try:
            new = config.load(self.path)
            taken = self._taken_up(running, new, node)
        except ConfigError as error:
            log.warning("the configuration is not taken up: %s", error)
            return Offer(None, str(error))
        if waiting := uptake.later(taken, new):
            log.info("%s: takes effect at the next start: %s", self.path, ", ".join(waiting))
        return Offer(taken, "")

    def _taken_up(self, running: Config, new: Config, node: str) -> Config:
        try:
            return uptake.taken_up(running, new, node)
        except ConfigError as error:
            error.file = str(self.path)
            raise


class Renewal:
    """Has a worker take up what its source offers, and tells it what was refused."""

    def __init__(self, worker: Worker, source: Source, running: Config, node: str) -> None:
        self.worker = worker
        self.source = source
        self.running = running
        self.node = node
        self.coming = running
        self.timer: asyncio.TimerHandle | None = None  # None: it does not look

    def begin(self) -> None:
        """Look now, as it may have changed while the worker started, and once a second."""
        self.timer = asyncio.get_running_loop().call_later(EVERY, self.begin)
        self.look()

    def end(self) -> None:
        """Look no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def hang_up(self) -> None:
        """SIGHUP: look at once. Before the worker has started it does not, as `begin` will."""
        self.worker.hang_up()
        if self.timer is not None:
            self.look(asked=True)

    def look(self, *, asked: bool = False) -> None:
        """Take up what is new."""
        try:
            offer = self.source.offer(self.running, self.node, asked=asked)
        except TornError:  # it will be whole at the next look
            return
        if offer is None:
            return
        self.worker.config_refused = offer.refused
        if offer.config is not None and offer.config != self.coming:
            self._take(offer.config)

    def _take(self, new: Config) -> None:
        """Take up a configuration; a large ring is made in a thread, so that the loop does not stand still."""
        self.coming = new
        if new.slices * len(new.shards) < LARGE:
            self._reconfigure(new)
            return
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, ring_of, new).add_done_callback(lambda _: self._reconfigure(new))

    def _reconfigure(self, new: Config) -> None:
        if new is not self.coming:  # another came meanwhile
            return
        try:
            self.worker.reconfigure(new)
        except ConfigError as error:
            log.error("the configuration is not taken up: %s", error)
            self.worker.config_refused = str(error)
            self.coming = self.running
            return
        except Exception as error:
            log.exception("the configuration could not be taken up")
            self.worker.config_refused = f"could not be taken up: {error!r}"
            self.coming = self.running
            return
        self.running = new
        own = self.worker.own
        if own is not None:  # one that the file lacks by now has no address: others may have it
            mine = [process for process in new.on_node(self.node) if process.name == own.name]
            self.worker.admin.move(new.admin_of(mine[0]) if mine else None)
