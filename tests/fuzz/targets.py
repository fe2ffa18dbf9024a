"""What is fuzzed: each target takes bytes as a list of things to do with a rig, and returns the rig's transcript.

Every byte string means something, so mutations of good inputs go on to do something.
"""

import struct
from contextlib import suppress

from fuzz.http_rig import HttpRig
from fuzz.rig import SLICES, Rig, Source, check_replies
from http_bench import announce_query, escape, head_of
from packing import unpack_endpoints
from trackers import ANNOUNCE, MAGIC, SCRAPE

from common import frames
from common.batch_io import address_of

SOURCES = [
    Source("127.0.0.1", 1025),
    Source("192.0.2.1", 5000),
    Source("198.51.100.7", 80),
    Source("10.0.0.9", 6881),
    Source("203.0.113.9", 65535),
    Source("192.0.2.2", 0),  # nobody can be there
    Source("224.0.0.1", 99),
    Source("0.1.2.3", 99),
    Source("2001:db8::1", 5000),
    Source("2001:db8::2", 5001),
    Source("::1", 4000),
    Source("::ffff:192.0.2.1", 4001),
    Source("fd00::1", 7),
    Source("fe80::5", 9),
    Source("ff02::1", 9),
    Source("::", 9),
]


class Script:
    """Bytes that are read from the front; past their end there are zeros."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def __bool__(self):
        return self.at < len(self.data)

    def take(self, many):
        """The next bytes, fewer at the end."""
        taken = self.data[self.at : self.at + many]
        self.at += many
        return taken

    def byte(self):
        return int.from_bytes(self.take(1), "big")

    def word(self):
        return int.from_bytes(self.take(2), "big")


def make_rig(kernel, script, litter):
    """A rig as the first byte wants it."""
    options = script.byte()
    tight, silent, cramped = (options & bit != 0 for bit in (1, 2, 4))
    return Rig(kernel, tight=tight, silent=silent, cramped=cramped, litter=litter)


def info_hash(number):
    """An info-hash by number."""
    return bytes([number]) * 20


# Datagrams: a byte that says what (high half) and from where (low half), then what the function of that number takes.


def datagrams(kernel, data, litter=0):
    """Through decode, stores and encode."""
    script = Script(data)
    rig = make_rig(kernel, script, litter)
    while script:
        byte = script.byte()
        STEPS[byte >> 4](rig, script, SOURCES[byte & 15])
    return rig.finish()


def send_raw(rig, script, source):
    rig.send(source, script.take(script.byte()))


def send_long(rig, script, source):
    """A datagram that a few bytes are repeated in."""
    length = script.word() % 2200
    rig.send(source, (rig.good_id(source) + script.take(24) * 100)[:length])


def send_with_id(rig, script, source):
    rig.send(source, rig.good_id(source) + script.take(script.byte()))


def send_with_old_id(rig, script, source):
    how = script.byte()
    rig.send(source, rig.good_id(source, (how >> 1) % 5 - 1, old=how & 1 != 0) + script.take(script.byte()))


def send_with_id_of_another(rig, script, source):
    rig.send(source, rig.good_id(SOURCES[script.byte() & 15]) + script.take(script.byte()))


def connect(rig, script, source):
    rig.send(source, struct.pack(">QII", MAGIC, 0, 0) + bytes(script.byte() % 32))


def announce(rig, script, source):
    rig.send(source, make_announce(rig, script, source) + script.take(script.byte() % 64))


def announce_crowd(rig, script, source):
    """The same announce for many ports, or many addresses of one who is trusted; only the last wants peers."""
    datagram = make_announce(rig, script, source)
    (port,) = struct.unpack_from(">H", datagram, 96)
    many = script.byte() % 100
    for n in range(many):
        address = struct.pack(">BBH", 8, 8, n) if port % 2 else bytes(4)
        want = datagram[92:96] if n == many - 1 else bytes(4)
        rig.send(source, datagram[:84] + address + datagram[88:92] + want + struct.pack(">H", (port + n) % 65536))


def make_announce(rig, script, source):
    """An announce of 98 bytes in four: torrent, event and left, number wanted, and the port's low byte."""
    torrent, what, want, port = script.byte(), script.byte(), script.byte(), script.byte()
    event = what & 7 if what & 0x80 == 0 else 0x0100_0000 * what
    left = 0 if what & 8 else (1, 0xFFFF_FFFF_FFFF_FFFF)[what >> 4 & 1]
    address = script.take(4).ljust(4, b"\0") if what & 0x20 else bytes(4)
    number = want - 256 if want & 0x80 else want
    head = rig.good_id(source) + struct.pack(">II", ANNOUNCE, 0) + info_hash(torrent) + bytes(20)
    return head + struct.pack(">QQQI4sIiH", 0, left, 0, event, address, 0, number, port + 0x1A00 * (port > 1))


def scrape(rig, script, source):
    """Of several torrents, one after the other, or the same again and again."""
    many, torrent, step = script.byte() % 80, script.byte(), script.byte()
    hashes = b"".join(info_hash((torrent + step * n) % 256) for n in range(many))
    rig.send(source, rig.good_id(source) + struct.pack(">II", SCRAPE, 0) + hashes)


def wait(rig, script, source):
    rig.advance(1 << script.byte() % 14)


def lose(rig, script, source):
    rig.deaf.add(source.port % 2)


def rotate(rig, script, source):
    rig.rotate()


def flush(rig, script, source):
    rig.flush()


STEPS = [
    announce, announce, announce, announce_crowd, announce_crowd, scrape, connect, wait, flush,
    send_raw, send_long, send_with_id, send_with_old_id, send_with_id_of_another, lose, rotate,
]  # fmt: skip


# Frames: a byte that says what, two of a length, and so many bytes to do it with.


def framed(kernel, data, litter=0):
    """Frames and chunks as they may come from others. What does not add up is refused; nothing else is."""
    script = Script(data)
    rig = make_rig(kernel, script, litter)
    source = SOURCES[1]
    rig.deaf.update((0, 1))
    scrape(rig, Script(b"\x03\x00\x01"), source)  # a place in the gather table waits for three parts
    rig.flush()
    while script:
        door = DOORS[script.byte() % len(DOORS)]
        door(rig, script.take(script.word()))
        rig.now += 1
    return rig.finish()


def try_door(rig, door, *arguments):
    """What a door returns, or -1 if it refuses."""
    try:
        result = door(*arguments)
    except (ValueError, MemoryError) as error:
        rig.note(type(error).__name__)
        return -1
    rig.note(result)
    return result


def answer(rig, frame):
    replies = rig.replies[0]
    length = try_door(rig, rig.stores[0].answer, frame, replies, rig.now, 5)
    if length >= 0:
        reply = bytes(replies[:length])
        rig.note(reply)
        check_replies(frame, reply)


def answer_records(rig, body):
    """The same, with a header that fits."""
    many = len(body) // frames.RECORD
    header = struct.pack("<HHIQQQ", frames.VERSION, frames.RECORDS, many, 1, 2, 3)
    answer(rig, header + body[: many * frames.RECORD])


def load(rig, body):
    store = rig.stores[0]
    before = store.swarm_count(), store.peers_by_kind()
    try_door(rig, store.load, body[0] if body else 0, body[1:], rig.now)
    if rig.transcript[-1] == "ValueError":
        assert before == (store.swarm_count(), store.peers_by_kind())


def load_sections(rig, body):
    """The same, with counts that fit."""
    script = Script(body[1:])
    chunk = bytearray(body[:1])
    while script:
        head = bytearray(script.take(frames.SECTION).ljust(frames.SECTION, b"\0"))
        head[22] %= 7
        size = 9 if head[22] < frames.PUBLIC6 else 21
        peers = script.take(head[23] % 70 * size)
        head[23] = len(peers) // size
        chunk += head + peers[: head[23] * size]
    load(rig, bytes([chunk[0] % SLICES]) + chunk[1:] if chunk else b"")


def encode(rig, frame):
    replies = memoryview(bytearray(frame))
    if frame:
        rig.sendable.append(replies)
        rig.note(rig.codec.encode(replies, address_of(replies)))
        for index in range(2):
            rig.note(*(rig.queued(place + 16 * index) for place in range(rig.codec.take_pending(index))))


def encode_replies(rig, body):
    """The same, with lengths that fit: each reply's own comes first."""
    script = Script(body)
    frame = bytearray(struct.pack("<HHIQQQ", frames.VERSION, frames.REPLIES, 0, 1, 2, 3))
    while script:
        length = frames.REPLY + script.byte() * 6
        frame += struct.pack("<I", length) + script.take(length - 4).ljust(length - 4, b"\0")
    encode(rig, frame)


def dump(rig, body):
    if len(body) == 1 + frames.CURSOR:
        rig.dump(rig.stores[0], body[0] % SLICES, body[1:])
    else:
        cursor = memoryview(bytearray(body[1:]))
        out = memoryview(bytearray(4096))
        with suppress(IndexError):
            try_door(rig, rig.stores[0].dump, body[0], cursor, out, rig.now)


def sweep(rig, body):
    rig.advance(sum(body))


def drop(rig, body):
    """Some of a slice, in steps."""
    script = Script(body)
    slice_id, budget = script.byte(), script.byte() << 3
    while script.byte():
        try_door(rig, rig.stores[0].drop, slice_id, rig.now, budget)
        try_door(rig, rig.stores[0].sweep, rig.now, budget)


def set_states(rig, body):
    """A slice and a state, again and again."""
    script = Script(body)
    while script:
        try_door(rig, rig.stores[0].set_state, script.byte(), script.byte())


DOORS = [
    answer, answer_records, answer_records, load, load_sections, encode, encode_replies, dump, sweep, drop, set_states,
]  # fmt: skip


# Requests: a byte that says what (high half) and from where (low half), then what the function of that number takes.

HTTP_SOURCES = ["198.51.100.1", "192.0.2.1", "127.0.0.1", "2001:db8::1", "2001:db8:5::1", "fd00::1", "8.8.8.8", "::1"]
HEADS = [
    b"",
    b"GET ",
    b"GET /announce?",
    b"GET /scrape?info_hash=",
    b"HEAD /announce?port=1&",
    b"GET http://a/announce",
]
LINES = [b"", b"X-Forwarded-For: ", b"Connection: ", b"Content-Length: ", b"Transfer-Encoding: ", b"X-Forwarded-For:"]


def requests(kernel, data, litter=0):
    """Heads and queries through HTTP's codec, and the replies to them."""
    script = Script(data)
    rig = HttpRig(kernel, tight=script.byte() & 1 != 0, litter=litter)
    while script:
        byte = script.byte()
        HTTP_STEPS[byte >> 4](rig, script, HTTP_SOURCES[byte & 7])
    return rig.finish()


def ask_raw(rig, script, source):
    """A head that may be anything, and may not end."""
    start = script.byte()
    rig.send(HEADS[start % len(HEADS)] + script.take(script.word() % 600) + b" HTTP/1.1\r\n\r\n" * (start >> 7), source)


def ask_long(rig, script, source):
    """A head that a few bytes are repeated in."""
    start, length = script.byte(), script.word() % 9000
    rig.send((HEADS[start % len(HEADS)] + script.take(8) * 1200)[:length] + b" HTTP/1.0\n\n" * (start >> 7), source)


def ask_announce(rig, script, source):
    """A good announce, and more pieces."""
    query = announce_query(info_hash(script.byte()), port=script.byte())
    rig.send(head_of(b"/announce?" + query + b"&" + script.take(script.byte()).replace(b"\n", b"")), source)


def ask_query(rig, script, source):
    """A query that is right until it is not."""
    path = (b"/announce?", b"/scrape?")[script.byte() % 2]
    rig.send(head_of(path + script.take(script.word() % 600).replace(b"\n", b"")), source)


def ask_with_line(rig, script, source):
    """A good announce with a header."""
    line = LINES[script.byte() % len(LINES)] + script.take(script.byte())
    rig.send(head_of(b"/announce?" + announce_query(), line, b"X: y"), source)


def ask_scrape(rig, script, source):
    """Of several torrents, some of them the same."""
    many, torrent, step = script.byte() % 120, script.byte(), script.byte()
    hashes = (info_hash((torrent + step * n) % 256) for n in range(many))
    rig.send(head_of(b"/scrape?" + b"&".join(b"info_hash=" + escape(one) for one in hashes)), source)


def reply_to(rig, script, source):
    """To a record that waits: counts, then peers."""
    rig.flush()
    index, counts = script.byte(), (script.word(), script.word() << 16, script.byte())
    fours, sixes = script.byte() % 100, script.byte() % 100
    peers = (
        unpack_endpoints(script.take(6).ljust(6, b"\7"), False),
        unpack_endpoints(script.take(18).ljust(18, b"\0"), True),
    )
    rig.reply(index, peers[0] * fours, peers[1] * sixes, counts)


def reply_raw(rig, script, source):
    """A frame that may be anything."""
    header = struct.pack("<HHIQQQ", frames.VERSION, frames.REPLIES, 0, 1, 2, 3)
    rig.flush()
    rig.encode((b"", header)[script.byte() & 1] + script.take(script.word()))


def reply_spoilt(rig, script, source):
    """To a record that waits, with a few bytes changed."""
    rig.flush()
    if rig.asked:
        reply = bytearray(struct.pack("<I", frames.REPLY) + bytes(frames.REPLY - 4))
        reply[frames.AT_TICKET : frames.AT_TICKET + 48] = rig.asked[script.byte() % len(rig.asked)][:48]
        for _ in range(script.byte() % 4):
            at = script.byte() % len(reply)
            reply[at] = script.byte()
        rig.encode(
            struct.pack("<HHIQQQ", frames.VERSION, frames.REPLIES, 1, 1, 2, 3) + reply + script.take(script.byte())
        )


def pass_time(rig, script, source):
    rig.advance(script.byte() % 8)


def take_rows(rig, script, source):
    rig.flush()


def leave(rig, script, source):
    rig.flush()
    if rig.open:
        rig.close(list(rig.open)[script.byte() % len(rig.open)])


HTTP_STEPS = [
    ask_announce, ask_announce, ask_query, ask_query, ask_raw, ask_raw, ask_long, ask_with_line,
    ask_with_line, ask_scrape, reply_to, reply_raw, reply_spoilt, pass_time, take_rows, leave,
]  # fmt: skip

TARGETS = {"datagrams": datagrams, "frames": framed, "requests": requests}
