"""A gateway's side of all links: frames and the time in, frames out. Sans-I/O: what sends frames is given to it.

`Shards` decides who is asked and who gets copies, `Router` fills the frames, `RemoteLink` keeps to the window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.remote_link import RemoteLink
from gateway.router import Nobody

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.link_state import LinkState
    from common.topology import Topology
    from gateway.router import Router
    from gateway.shards import Shards


class GatewayMachine:
    """What a gateway does with frames of shards.

    send: is given a shard's name and a frame; whether somebody was there to take it. clock: the time in ms, asked when
    nobody was. changed: is called when a shard came to be heard, or is no longer.
    """

    def __init__(
        self,
        shards: Shards,
        send: Callable[[str, bytes | memoryview], bool],
        clock: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self.shards = shards
        self.send = send
        self.clock = clock
        self.changed = changed
        self.remote: dict[str, RemoteLink] = {}
        self.nobody: Nobody | None = None
        self.router: Router | None = None
        self.asked: list[LinkState] = []  # shards that are heard and do not stop

    @property
    def count(self) -> int:
        """Frames of records that are needed: one a shard, and one for nobody."""
        return len(self.shards.links) + 1

    def connect(self, router: Router) -> None:
        """Give the router its links."""
        self.router = router
        self.nobody = Nobody(router)
        self._link(router)

    def configure(self, topology: Topology, now: int) -> None:
        """Take up another configuration. What waits for shards is sent before: places in frames are others then."""
        router = self.router
        assert router is not None
        router.dispatch()
        for index, link in enumerate(self.remote.values()):
            if router.records.waiting(index):
                link.send_now(index)
        self.shards.configure(topology, now)
        self._link(router)
        self.look(now)

    def tick(self, now: int, report: bytes = b"") -> None:
        """Send the pings that are due; to be called some times a second, after `shards.beat`."""
        for name, frame in self.shards.tick(now, report):
            self.send(name, frame)  # nobody there is no news: the pong will not come
        if self.shards.departed(now):
            self.configure(self.shards.me.topology, now)
        self.look(now)

    def look(self, now: int) -> None:
        """See who is heard, and whom to ask."""
        before = bytes(self.shards.usable)
        if self.shards.look(now):
            self._reroute()
            if before != self.shards.usable:
                self.changed()
        # With nobody heard there is nothing to wait for.
        self.asked = [link for link, usable in zip(self.shards.links, self.shards.usable, strict=True) if usable]

    def take(self, name: str, frame: memoryview, address: int, now: int) -> bool:
        """Deal with a frame of a shard that lies at `address`, where it must stay until answers are sent.

        Whether there may be answers to send.
        """
        router = self.router
        assert router is not None
        taken = self.shards.take(name, frame, now)
        if taken:
            router.take_replies(frame, address)
        return taken

    def go_on(self, name: str) -> bool:
        """Send what waits for a shard that may have room again; whether there may be answers to send."""
        router = self.router
        link = self.shards.by_name.get(name)
        if router is None or link is None or not router.records.waiting(self.shards.links.index(link)):
            return False
        router.dispatch()
        return True

    def _link(self, router: Router) -> None:
        """The links, in the order of the table."""
        assert self.nobody is not None
        self.remote = {
            name: self.remote.get(name) or RemoteLink(router, state, self.send, self._on_broken)
            for name, state in self.shards.by_name.items()
        }
        router.set_links([*self.remote.values(), self.nobody])
        self._set_table(router)

    def _set_table(self, router: Router) -> None:
        shards = self.shards
        router.records.set_links(shards.table, shards.first, shards.copies)

    def _on_broken(self) -> None:
        self.look(self.clock())

    def _reroute(self) -> None:
        """Other shards answer from now on; what waits for one that is silent is lost, as it cannot be asked."""
        assert self.router is not None
        self._set_table(self.router)
        for index, link in enumerate(self.remote.values()):
            if not self.shards.usable[index]:
                link.shed += self.router.records.drop(index)
