"""What a process knows of one shard that it is linked to. Sans-I/O: it is given frames and the time, in ms.

Of the shard, by its pongs: boot and tick, states of slices, whether it stops. Of the link: whether the shard is
silent, and how many frames of records are unanswered. See design: "Links".

Unanswered frames. A shard answers in order, so a pong follows the replies of all records that were sent before its
ping: unanswered are those sent since. So a reply that was lost with a connection holds no place for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import control

if TYPE_CHECKING:
    from common.control import Hello

PING_EVERY = 500  # ms
SILENT = 2000  # ms since the last ping that was answered; a pong that takes longer does not count
RECONNECT_EVERY = 10_000  # ms between two new connections to a silent shard
WINDOW = 64  # frames of records that may be unanswered


class LinkState:
    """One link. `slices`, `cluster`: what the shard must agree on."""

    def __init__(self, name: str, slices: int, cluster: int) -> None:
        self.name = name
        self.slices = slices
        self.cluster = cluster
        self.number = 0  # of the last ping
        self.pings: dict[int, tuple[int, int]] = {}  # number of a ping: when it was sent, frames sent before
        self.next_ping = 0
        self.heard: int | None = None  # when the last ping was sent that was answered in time
        self.last_heard = -1  # the same, whatever became of the connection since
        self.next_connection: int | None = None
        self.pong: Hello | None = None
        self.refused = ""  # why its pongs are not taken
        self.round_trip = 0  # ms of the last ping
        self.sent = 0
        self.unanswered = 0
        self.late = 0  # pongs that came too late
        self.lost = 0  # frames of records whose replies did not come

    def __repr__(self) -> str:
        return (
            f"<LinkState {self.name} boot {self.boot:x} | {self.unanswered} unanswered{self.refused and ' | refused'}>"
        )

    @property
    def boot(self) -> int:
        """The shard's, as heard last; 0 before."""
        return self.pong.boot if self.pong else 0

    @property
    def tick(self) -> int:
        """The shard's, as heard last."""
        return self.pong.tick if self.pong else 0

    def ping_due(self, now: int) -> int | None:
        """The number of a ping that is to be sent now, if one is."""
        if now < self.next_ping:
            return None
        self.next_ping = now + PING_EVERY
        self.number += 1
        self.pings[self.number] = (now, self.sent)
        for number in [number for number, (then, _) in self.pings.items() if now - then > SILENT]:
            del self.pings[number]
        return self.number

    def take_pong(self, number: int, hello: Hello, now: int) -> bool:
        """Note a pong; whether it counts."""
        ping = self.pings.pop(number, None)
        if ping is None or now - ping[0] > SILENT:
            self.late += 1
            return False
        self.refused = self._refusal(hello)
        if self.refused:
            return False
        self.pong = hello
        self.heard, sent = max(ping[0], self.heard or 0), ping[1]
        self.last_heard = max(self.last_heard, self.heard)
        self.round_trip = now - ping[0]
        self.lost += max(0, self.unanswered - (self.sent - sent))
        self.unanswered = self.sent - sent
        return True

    def _refusal(self, hello: Hello) -> str:
        if hello.cluster != self.cluster:
            return "another cluster's key"
        if hello.slices != self.slices or len(hello.states) != control.states_length(self.slices):
            return f"it has {hello.slices} slices"
        if hello.name != self.name:
            return f"it is {hello.name}"
        return ""

    def is_silent(self, now: int) -> bool:
        """Whether nothing but pings may be sent."""
        return self.heard is None or now - self.heard > SILENT

    def is_usable(self, now: int) -> bool:
        """Whether records may be sent: it is heard, and does not stop."""
        return not self.is_silent(now) and self.pong is not None and not self.pong.stopping

    def has_room(self) -> bool:
        """Whether another frame of records may be sent."""
        return self.unanswered < WINDOW

    def note_sent(self) -> None:
        """A frame of records was sent."""
        self.sent += 1
        self.unanswered += 1

    def note_replies(self) -> None:
        """A frame of replies came."""
        self.unanswered = max(0, self.unanswered - 1)

    def note_broken(self) -> None:
        """There is no connection: silent until a pong comes."""
        self.heard = None

    def connection_due(self, now: int) -> bool:
        """Whether it is time for a new socket: a refused handshake is not tried again by libzmq."""
        if not self.is_silent(now) or self.next_connection is None:
            self.next_connection = now + RECONNECT_EVERY
            return False
        if now < self.next_connection:
            return False
        self.next_connection = now + RECONNECT_EVERY
        return True

    def show(self, now: int) -> dict[str, object]:
        """For the operator."""
        return {
            "shard": self.name,
            "silent": self.is_silent(now),
            "refused": self.refused,
            "unanswered": self.unanswered,
            "lost": self.lost,
            "round_trip_ms": self.round_trip,
        }
