"""Records out to the shards that answer for their slices, replies back. Sans-I/O: links are given to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.http_codec import HttpCodec
    from gateway.records import Records
    from gateway.udp_codec import UdpCodec


class Link(Protocol):
    """The way to a shard. Replies come back through `Router.take_replies`, at once or later."""

    def send(self, frame: memoryview) -> None:
        """Hand over a frame of records, which is valid until this returns."""


class Router:
    """Hands each link the records of its slices: one frame a link and turn of the loop."""

    def __init__(self, records: Records, udp: UdpCodec, http: HttpCodec) -> None:
        self.records = records
        self.udp = udp
        self.http = http
        self.links: list[Link] = []
        self.number = 0
        size = records.frame_size
        self.frames = [records.view[at * size : (at + 1) * size] for at in range(records.links)]

    def dispatch(self) -> None:
        """Send what the codecs have put into frames."""
        for index, link in enumerate(self.links):
            if length := self.records.close(index, self.number + 1, 0, 0):
                self.number += 1
                link.send(self.frames[index][:length])

    def take_replies(self, frame: memoryview, address: int) -> None:
        """Queue the answers of a frame of replies that lies at `address`; it must stay until they are sent."""
        self.udp.encode(frame, address)
        if self.udp.others:
            self.http.encode(frame)
