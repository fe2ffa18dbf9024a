"""Records out to the shards that answer for their slices, replies back. Sans-I/O: links are given to it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from common import frames
from common.batch_io import address_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.http_codec import HttpCodec
    from gateway.records import Records
    from gateway.udp_codec import UdpCodec


class Link(Protocol):
    """The way to a shard. Replies come back through `Router.take_replies`, at once or later."""

    def hand_over(self, index: int) -> None:
        """Take what waits in the frame of this index: `Router.close` gives it, valid until this returns.

        A link may leave it there while it has room.
        """

    def takes_copies(self) -> bool:
        """Whether copies of what others are asked may be put into its frame."""


class Router:
    """Hands each link the records of its slices: at most one frame a link and turn of the loop."""

    def __init__(self, records: Records, udp: UdpCodec, http: HttpCodec) -> None:
        self.records = records
        self.udp = udp
        self.http = http
        self.links: Sequence[Link] = ()
        self.frames: list[memoryview] = []
        self.number = 0
        self.copied = 0

    def set_links(self, links: Sequence[Link]) -> None:
        """Hand records to these links from now on. What waits in frames is gone; the table of links must follow."""
        records = self.records
        records.set_count(len(links))
        size = records.frame_size
        self.links = links
        self.frames = [records.view[at * size : (at + 1) * size] for at in range(records.links)]

    def dispatch(self) -> None:
        """Send what the codecs have put into frames, and copies of it to who should have them."""
        if self.records.copying:
            self.copied += self.records.copy(bytes(link.takes_copies() for link in self.links))
        for index, link in enumerate(self.links):
            if self.records.waiting(index):
                link.hand_over(index)

    def close(self, index: int, boot: int = 0, tick: int = 0) -> memoryview:
        """The frame of a link, for a receiver of this boot and tick; a new one is begun."""
        self.number += 1
        return self.frames[index][: self.records.close(index, self.number, boot, tick)]

    def take_replies(self, frame: memoryview, address: int) -> None:
        """Queue the answers of a frame of replies that lies at `address`; it must stay until they are sent."""
        self.udp.encode(frame, address)
        if self.udp.others:
            self.http.encode(frame)


class Nobody:
    """Stands for all shards when none is heard: announces get the valid empty answer and a short interval, scrapes a
    failure over HTTP and silence over UDP."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.empty = router.records.empty
        self.address = address_of(self.empty)
        self.answered = 0
        self.unasked = 0

    def takes_copies(self) -> bool:
        """There is nobody to keep them."""
        return False

    def hand_over(self, index: int) -> None:
        """Answer here."""
        records = self.router.records
        many = records.waiting(index)
        self.router.http.fail_scrapes(index)
        length = records.answer_empty(index, secrets.randbits(64))
        answered = (length - frames.HEADER) // frames.REPLY
        self.answered += answered
        self.unasked += many - answered
        self.router.take_replies(self.empty[:length], self.address)
