"""Which link is handed what, and who answers for nobody."""

import pytest

from common import frames
from gateway.router import Nobody, Router


class Records:
    """Frames of 4 bytes for links, with so many records each."""

    def __init__(self, *waiting):
        self.many = list(waiting)
        self.frame_size = 4
        self.copying = False
        self.room = []  # that links were said to have for copies
        self.empty = memoryview(bytearray(range(256)) * 3)
        self.closed = []
        self.drawn = []

    def set_count(self, links):
        self.links = links
        self.view = memoryview(bytes(range(4 * links)))

    def copy(self, room):
        """A copy for each link that has room."""
        self.room.append(room)
        self.many = [many + has_room for many, has_room in zip(self.many, room, strict=True)]
        return sum(room)

    def waiting(self, link):
        return self.many[link]

    def close(self, link, number, boot, tick):
        self.closed.append((number, boot, tick))
        many, self.many[link] = self.many[link], 0
        return many

    def answer_empty(self, link, entropy):
        """All but one are announces."""
        self.drawn.append(entropy)
        many, self.many[link] = self.many[link], 0
        return frames.HEADER + (many - 1) * frames.REPLY


class Codec:
    def __init__(self):
        self.encoded = []
        self.others = 0
        self.failed = []

    def encode(self, frame, address=None):
        self.encoded.append((bytes(frame), address))

    def fail_scrapes(self, link):
        self.failed.append((link, self.records.waiting(link)))


class Link:
    """Takes a frame at once, or leaves it where it is."""

    def __init__(self, router, has_room=True):
        self.router = router
        self.has_room = has_room
        self.sent = []

    def takes_copies(self):
        return self.has_room

    def hand_over(self, index):
        if self.has_room:
            self.sent.append(bytes(self.router.close(index, 50 + index, 60 + index)))


@pytest.fixture
def router():
    router = Router(Records(3, 0, 4), Codec(), Codec())
    router.set_links([Link(router) for _ in range(3)])
    return router


def test_each_link_gets_its_records(router):
    router.dispatch()
    assert [link.sent for link in router.links] == [[b"\0\1\2"], [], [b"\x08\x09\x0a\x0b"]]


def test_a_link_is_given_nothing_twice(router):
    for _ in range(2):
        router.dispatch()
    assert [len(link.sent) for link in router.links] == [1, 0, 1]


def test_a_link_without_room_may_leave_its_records_and_take_them_later(router):
    router.links[0].has_room = False
    router.dispatch()
    assert router.links[0].sent == []
    router.links[0].has_room = True
    router.dispatch()
    assert router.links[0].sent == [b"\0\1\2"]


def test_frames_are_numbered_without_gaps_and_name_their_receiver(router):
    router.dispatch()
    router.records.many[1] = 1
    router.dispatch()
    assert router.records.closed == [(1, 50, 60), (2, 52, 62), (3, 51, 61)]


def test_links_that_have_room_get_copies_before_anything_is_sent(router):
    router.links[0].has_room = False
    router.records.copying = True
    router.dispatch()
    assert router.records.room == [b"\0\1\1"]
    assert [link.sent for link in router.links] == [[], [b"\x04"], [b"\x08\x09\x0a\x0b"]]
    assert router.records.many == [3, 0, 0]
    assert router.copied == 2


def test_without_copies_nobody_is_asked_for_room(router):
    router.dispatch()
    assert router.records.room == []
    assert router.copied == 0


def test_nobody_takes_no_copies(router):
    router.set_links([*router.links[:2], Nobody(router)])
    router.records.copying = True
    router.http.records = router.records
    router.dispatch()
    assert router.records.room == [b"\1\1\0"]


def test_other_links_have_other_frames(router):
    links = [Link(router) for _ in range(2)]
    router.set_links(links)
    assert router.records.links == 2
    assert [bytes(frame) for frame in router.frames] == [b"\0\1\2\3", b"\4\5\6\7"]
    router.records.many = [4, 4]
    router.dispatch()
    assert [link.sent for link in links] == [[b"\0\1\2\3"], [b"\4\5\6\7"]]


def test_replies_go_to_udp(router):
    router.take_replies(memoryview(b"frame"), 123)
    assert router.udp.encoded == [(b"frame", 123)]
    assert router.http.encoded == []


def test_a_frame_with_replies_of_others_goes_to_http_too(router):
    router.udp.others = 2
    router.take_replies(memoryview(b"frame"), 123)
    assert router.udp.encoded == [(b"frame", 123)]
    assert router.http.encoded == [(b"frame", None)]


def test_nobody_answers_here_and_counts(router, monkeypatch):
    monkeypatch.setattr("gateway.router.address_of", lambda memory: 99 if memory is router.records.empty else 0)
    nobody = Nobody(router)
    router.set_links([*router.links[:2], nobody])
    router.http.records = router.records
    router.dispatch()
    assert router.udp.encoded == [(bytes(router.records.empty[: frames.HEADER + 3 * frames.REPLY]), 99)]
    assert (nobody.answered, nobody.unasked) == (3, 1)
    assert router.http.failed == [(2, 4)]  # while they are still there
    router.records.many[2] = 5
    router.dispatch()
    assert (nobody.answered, nobody.unasked) == (7, 2)
    assert len(set(router.records.drawn)) == 2
    assert all(0 <= drawn < 1 << 64 for drawn in router.records.drawn)
