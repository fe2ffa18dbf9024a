"""A gateway's links to the shards of its cluster: what shards.py decides, done with sockets."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from common import metrics
from common.life import milliseconds
from common.link_sockets import TICK, LinkSockets
from gateway.machine import GatewayMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client.metrics_core import Metric

    from common.link_state import LinkState
    from common.links import Context, KeyPair
    from common.topology import Topology
    from gateway.shards import Shards

log = logging.getLogger(__name__)

FIRST_WAIT = 2.0  # seconds in which all shards should have answered a first ping
LARGE = 512  # datagrams of a batch; smaller ones would be better later, and larger
LAST_WAIT = 2.0  # seconds for the last replies


class ShardLinks:
    """All links of a gateway. `report`: JSON for the operator.

    `answer` is called when replies have been given to the router, for their answers to be sent.
    """

    def __init__(
        self,
        context: Context,
        shards: Shards,
        addresses: dict[str, tuple[str, bytes]],
        mine: KeyPair | None,
        report: Callable[[], bytes],
    ) -> None:
        self.shards = shards
        self.report = report
        self.sockets = LinkSockets(context, mine, self._take)
        self.addresses = dict(addresses)  # also of shards that the file lacks by now
        self.linked: dict[str, LinkState] = {}
        self._connect()
        self.machine = GatewayMachine(shards, self.sockets.send, milliseconds, self._tell_away)
        self.answer: Callable[[], None] = lambda: None
        self.timer: asyncio.TimerHandle | None = None
        self.heard = asyncio.Event()  # all shards, for the first time

    def reconfigure(self, topology: Topology, addresses: dict[str, tuple[str, bytes]]) -> None:
        """Take up another configuration."""
        self.machine.configure(topology, milliseconds())
        self.addresses |= addresses
        self._connect()
        self.answer()  # if there was nobody to ask

    def _connect(self) -> None:
        """Link to the shards that there are."""
        self.linked = self.shards.by_name
        self.addresses = {name: self.addresses[name] for name in self.linked}
        self.sockets.set_shards({name: self.addresses[name] for name in self.linked}, self.linked)

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, and wait a little for all shards."""
        self.sockets.start(loop)
        self._tick()
        try:
            await asyncio.wait_for(self.heard.wait(), FIRST_WAIT)
        except TimeoutError:
            silent = [link.name for link in self.shards.links if link.pong is None]
            log.warning("not heard of yet: %s", ", ".join(silent))

    def busy(self, many: int) -> bool:
        """Whether every shard that is heard has enough to do already, if batches have `many` datagrams.

        A frame costs as much as some dozen records, so while one is under way it is better to let more gather. Not if
        batches are large: then a shard may have the next frame at hand while the gateway deals with replies.
        """
        enough = 1 if many < LARGE else 2
        for link in self.machine.asked:
            if link.unanswered < enough:
                return False
        return bool(self.machine.asked)

    async def finish(self) -> None:
        """Wait a little for replies that are under way."""
        deadline = milliseconds() + 1000 * LAST_WAIT
        while self.shards.unanswered() and milliseconds() < deadline:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Close all links."""
        if self.timer is not None:
            self.timer.cancel()
        self.sockets.close()

    def _tick(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(TICK, self._tick)  # also if what follows fails
        now = milliseconds()
        self._beat(now)
        self.sockets.tick(now)
        self.machine.tick(now, self.report())
        if self.linked is not self.shards.by_name:
            self._connect()
        if not self.heard.is_set() and self.shards.all_heard():
            self.heard.set()

    def _beat(self, now: int) -> None:
        if self.shards.beat(now):
            log.warning("the process had stood still: replies that waited meanwhile are not taken")

    def _take(self, name: str, frame: memoryview, now: int) -> None:
        self._beat(now)
        if self.machine.take(name, frame, self.sockets.address, now):
            self.answer()
        if self.machine.go_on(name):
            self.answer()

    def _tell_away(self) -> None:
        if away := self.shards.away():
            log.warning("silent or stopping, so others answer for them: %s", ", ".join(away))
        else:
            log.info("all shards are heard")

    def links_report(self) -> list[dict[str, object]]:
        """Each link, for the operator."""
        now = milliseconds()
        return [link.show(now) for link in self.shards.links]

    def metrics(self) -> Iterable[Metric]:
        """What the links counted."""
        machine = self.machine
        names = [link.name for link in self.shards.links]

        def by_shard(values: Iterable[int]) -> dict[str, int]:
            return dict(zip(names, values, strict=True))

        states = self.shards.links
        yield metrics.named(
            "shoal_link_frames", "Frames sent", "shard", by_shard(link.frames for link in machine.remote.values())
        )
        shed = "Records that could not be handed to their shard"
        yield metrics.named("shoal_link_shed", shed, "shard", by_shard(link.shed for link in machine.remote.values()))
        unanswered = "Frames of records without an answer"
        yield metrics.named_gauge(
            "shoal_link_unanswered", unanswered, "shard", by_shard(link.unanswered for link in states)
        )
        heard = "Whether a shard is heard, and asked"
        yield metrics.named_gauge("shoal_link_heard", heard, "shard", by_shard(self.shards.usable))
        lost = "Frames of records whose replies did not come"
        yield metrics.named("shoal_link_lost_frames", lost, "shard", by_shard(link.lost for link in states))
        late = "Pongs that came too late"
        yield metrics.named("shoal_link_late_pongs", late, "shard", by_shard(link.late for link in states))
        yield metrics.named("shoal_link_dropped", "Frames not taken, by reason", "reason", self.shards.dropped)
        if machine.router is not None:
            copies = "Copies of records for other shards: sent, and those that found no room"
            sent = {"sent": machine.router.copied, "no_room": machine.router.records.uncopied}
            yield metrics.named("shoal_record_copies", copies, "fate", sent)
        if machine.nobody is not None:
            yield metrics.counter("shoal_empty_answers", "Announces answered without a shard", machine.nobody.answered)
            unasked = "Scrapes that no shard could be asked for"
            yield metrics.counter("shoal_unasked_scrapes", unasked, machine.nobody.unasked)
        yield metrics.counter("shoal_stalls", "Times that the process stood still", self.shards.me.life.stalls)
        yield metrics.counter("shoal_link_reconnections", "New links to silent shards", self.sockets.reconnections)
