import pytest

from gateway.router import Router


class Codec:
    """Frames of given lengths, and who takes replies."""

    def __init__(self, *lengths):
        self.lengths = list(lengths)
        self.links = len(lengths)
        self.frame_size = 4
        self.view = memoryview(bytes(range(4 * self.links)))
        self.closed = []
        self.encoded = []
        self.others = 0

    def close(self, link, number, boot, tick):
        self.closed.append((link, number))
        return self.lengths[link]

    def encode(self, frame, address=None):
        self.encoded.append((frame, address))


class Link:
    def __init__(self):
        self.sent = []

    def send(self, frame):
        self.sent.append(bytes(frame))


@pytest.fixture
def router():
    codec = Codec(3, 0, 4)
    router = Router(codec, codec, Codec())
    router.links = [Link() for _ in range(3)]
    return router


def test_each_link_gets_its_records(router):
    router.dispatch()
    assert [link.sent for link in router.links] == [[b"\0\1\2"], [], [b"\x08\x09\x0a\x0b"]]


def test_frames_are_numbered_without_gaps(router):
    for _ in range(2):
        router.dispatch()
    assert [number for link, number in router.records.closed if router.records.lengths[link]] == [1, 2, 3, 4]
    assert router.number == 4


def test_replies_go_to_udp(router):
    router.take_replies(memoryview(b"frame"), 123)
    assert router.udp.encoded == [(b"frame", 123)]
    assert router.http.encoded == []


def test_a_frame_with_replies_of_others_goes_to_http_too(router):
    router.udp.others = 2
    router.take_replies(memoryview(b"frame"), 123)
    assert router.udp.encoded == [(b"frame", 123)]
    assert router.http.encoded == [(b"frame", None)]
