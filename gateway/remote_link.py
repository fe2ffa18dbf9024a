"""The way of records to one shard elsewhere. Sans-I/O: what sends frames is given to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from common.link_state import LinkState
    from gateway.router import Router


class RemoteLink:
    """The link to one shard. While too many of its frames are unanswered its records gather in the next one; what
    finds no room there is shed.

    send: is given the shard's name and a frame; whether somebody was there to take it. broken: is called if not.
    """

    def __init__(
        self, router: Router, state: LinkState, send: Callable[[str, memoryview], bool], broken: Callable[[], None]
    ) -> None:
        self.router = router
        self.state = state
        self.send = send
        self.broken = broken
        self.shed = 0
        self.frames = 0

    def hand_over(self, index: int) -> None:
        """Send the frame, if the shard has room for it."""
        records = self.router.records
        if self.state.has_room():
            self.send_now(index)
        elif not records.has_room(index):
            self.shed += records.drop(index)

    def send_now(self, index: int) -> None:
        """Send the frame, whether there is room or not."""
        state = self.state
        many = self.router.records.waiting(index)
        if self.send(state.name, self.router.close(index, state.boot, state.tick)):
            state.note_sent()
            self.frames += 1
        else:
            state.note_broken()
            self.shed += many
            self.broken()  # the next frame goes to another

    def takes_copies(self) -> bool:
        """Whether copies may be put into its frame."""
        return self.state.has_room()
