"""A gateway's links to the shards of its cluster: what shards.py decides, done with sockets."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from common import metrics
from common.life import milliseconds
from common.link_sockets import TICK, LinkSockets
from gateway.router import Nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from common.control import Hello
    from common.link_state import LinkState
    from common.links import Context, KeyPair
    from gateway.router import Link, Router
    from gateway.shards import Shards

log = logging.getLogger(__name__)

FIRST_WAIT = 2.0  # seconds in which all shards should have answered a first ping
LARGE = 512  # datagrams of a batch; smaller ones would be better later, and larger
LAST_WAIT = 2.0  # seconds for the last replies


class RemoteLink:
    """The link to one shard. While too many of its frames are unanswered its records gather in the next one; what
    finds no room there is shed."""

    def __init__(self, links: ShardLinks, router: Router, index: int) -> None:
        self.sockets = links.sockets
        self.look = links.look
        self.router = router
        self.index = index
        self.state = links.shards.links[index]
        self.shed = 0
        self.frames = 0

    def hand_over(self, index: int) -> None:
        """Send the frame, if the shard has room for it."""
        records = self.router.records
        state = self.state
        if state.has_room():
            many = records.waiting(index)
            if self.sockets.send(self.index, self.router.close(index, state.boot, state.tick)):
                state.note_sent()
                self.frames += 1
            else:
                state.note_broken()
                self.shed += many
                self.look(milliseconds())  # the next frame goes to another
        elif not records.has_room(index):
            self.shed += records.drop(index)


class ShardLinks:
    """All links of a gateway. `addresses`: of the shards, and their public keys. `report`: JSON for the operator.

    `answer` is called when replies have been given to the router, for their answers to be sent.
    """

    def __init__(
        self,
        context: Context,
        shards: Shards,
        addresses: Sequence[tuple[str, bytes]],
        mine: KeyPair | None,
        report: Callable[[], bytes],
    ) -> None:
        self.shards = shards
        self.report = report
        self.sockets = LinkSockets(context, addresses, mine, shards.links, self._hello, self._take)
        self.remote: list[RemoteLink] = []
        self.nobody: Nobody | None = None
        self.router: Router | None = None
        self.asked: list[LinkState] = []  # shards that are heard and do not stop
        self.answer: Callable[[], None] = lambda: None
        self.timer: asyncio.TimerHandle | None = None
        self.heard = asyncio.Event()  # all shards, for the first time

    @property
    def count(self) -> int:
        """Frames of records that are needed: one a shard, and one for nobody."""
        return len(self.shards.links) + 1

    def connect(self, router: Router) -> list[Link]:
        """The links, in the order of the table."""
        self.router = router
        self.remote = [RemoteLink(self, router, index) for index in range(len(self.shards.links))]
        self.nobody = Nobody(router)
        router.records.set_links(memoryview(self.shards.table).cast("B"))
        return [*self.remote, self.nobody]

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
        for link in self.asked:
            if link.unanswered < enough:
                return False
        return bool(self.asked)

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

    def _hello(self, now: int) -> Hello:
        return self.shards.me.hello(now, self.report())

    def _tick(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(TICK, self._tick)  # also if what follows fails
        now = milliseconds()
        self._beat(now)
        self.sockets.tick()
        self.look(now)

    def _beat(self, now: int) -> None:
        if self.shards.beat(now):
            log.warning("the process had stood still: replies that waited meanwhile are not taken")

    def look(self, now: int) -> None:
        """See who is heard, and whom to ask."""
        if self.shards.look(now):
            self._reroute()
        # With nobody heard there is nothing to wait for.
        self.asked = [link for link, usable in zip(self.shards.links, self.shards.usable, strict=True) if usable]
        if not self.heard.is_set() and self.shards.all_heard():
            self.heard.set()

    def _reroute(self) -> None:
        """Other shards answer from now on; what waits for one that is silent is lost, as it cannot be asked."""
        assert self.router is not None
        records = self.router.records
        records.set_links(memoryview(self.shards.table).cast("B"))
        for index, link in enumerate(self.remote):
            if not self.shards.usable[index]:
                link.shed += records.drop(index)
        if away := self.shards.away():
            log.warning("silent or stopping, so others answer for them: %s", ", ".join(away))
        else:
            log.info("all shards are heard")

    def _take(self, index: int, frame: memoryview, now: int) -> None:
        assert self.router is not None
        self._beat(now)
        if self.shards.take(index, frame, now):
            self.router.take_replies(frame, self.sockets.address)
            self.answer()
        if self.router.records.waiting(index):  # there may be room again
            self.router.dispatch()
            self.answer()

    def links_report(self) -> list[dict[str, object]]:
        """Each link, for the operator."""
        now = milliseconds()
        return [link.show(now) for link in self.shards.links]

    def metrics(self) -> Iterable[Metric]:
        """What the links counted."""
        names = [link.name for link in self.shards.links]

        def by_shard(values: Iterable[int]) -> dict[str, int]:
            return dict(zip(names, values, strict=True))

        states = self.shards.links
        yield metrics.named("shoal_link_frames", "Frames sent", "shard", by_shard(link.frames for link in self.remote))
        shed = "Records that could not be handed to their shard"
        yield metrics.named("shoal_link_shed", shed, "shard", by_shard(link.shed for link in self.remote))
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
        if self.nobody is not None:
            yield metrics.counter("shoal_empty_answers", "Announces answered without a shard", self.nobody.answered)
            unasked = "Scrapes that no shard could be asked for"
            yield metrics.counter("shoal_unasked_scrapes", unasked, self.nobody.unasked)
        yield metrics.counter("shoal_stalls", "Times that the process stood still", self.shards.me.life.stalls)
        yield metrics.counter("shoal_link_reconnections", "New links to silent shards", self.sockets.reconnections)
