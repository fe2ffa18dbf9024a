"""The HTTP codec on places without sockets, for tests of the kernels: requests in as rows, replies in as frames."""

import struct
from types import SimpleNamespace

from http_client import encode
from packing import HEADER, REPLY, Request, packed
from trackers import as_ipv6

from common import frames
from common.batch_io import allocate
from gateway.siphash import siphash

CLUSTER = bytes([1]) * 16
BOOT = 0xB007_B007_B007_B007
HOST, HOST6 = "198.51.100.1", "2001:db8::1"
PEER_ID = b"-TR4060-0123456789ab"
SECOND = 1_000_000
START = 1000 * SECOND
CLOSE, HEAD, LIST, DRAIN = 1, 2, 4, 8  # what a request asks for, in its ticket
INTERVAL = 1800


def words(host):
    """An address as two words as they lie in memory."""
    return struct.unpack("<QQ", as_ipv6(host))


def kernels_of(kernel):
    """The codec and what it is made of, all compiled or none."""
    return SimpleNamespace(
        HttpCodec=kernel("gateway.http_codec").HttpCodec,
        Connections=kernel("gateway.connections").Connections,
        Records=kernel("gateway.records").Records,
        Sources=kernel("gateway.sources").Sources,
    )


class Bench:
    """A codec, and places that are opened as they are needed."""

    def __init__(self, module, most=600, depth=8, links=1, slices=1, want=50, memory=allocate):
        self.sources = module.Sources(memory)
        self.sources.set_limits(1000, 1000, 100_000, 1_000_000)
        self.connections = module.Connections(memory, [], self.sources, most, 128, 30)
        self.records = module.Records(memory, links, slices, depth)
        self.records.set_key(CLUSTER)
        self.codec = module.HttpCodec(memory, self.connections, self.records, self.sources, want, 200, BOOT)
        self.links = links
        self.now = START
        self.seconds = 1000
        self.asked = 0  # requests that were given a number

    def put(self, *heads, source=HOST):
        """Let heads be rows, each of a place of its own; returns the places."""
        places = []
        for head in heads:
            places.append(self.connections.open_inner(*words(source)))
            self.connections.put_row(places[-1], head)
        return places

    def decode(self):
        """Take all rows; returns (records of all links, specials)."""
        done = 0
        records, specials = [], []
        while done < self.connections.rows:
            before, done = done, self.codec.decode(done, self.now, self.seconds)
            specials += self.codec.take_specials()
            taken = [record for link in range(self.links) for record in self.take(link)]
            assert done > before or taken
            records += taken
        self.connections.clear()
        return records, specials

    def take(self, link=0):
        """The records of a link, each 96 bytes."""
        length = self.records.close(link, 7, 8, 9)
        if length == 0:
            return []
        frame = bytes(self.records.view[link * self.records.frame_size :][:length])
        count = (length - frames.HEADER) // frames.RECORD
        assert frame[: frames.HEADER] == HEADER.pack(frames.VERSION, frames.RECORDS, count, 7, 8, 9)
        return [frame[frames.HEADER + at * frames.RECORD :][: frames.RECORD] for at in range(count)]

    def answers(self):
        """What would be sent: (place, answer, what follows), in order."""
        found = [(place, *self.connections.answer(index)) for place, index in self.connections.send(self.seconds)]
        self.connections.forget_answers()
        return found

    def ask(self, head, source=HOST):
        """A head and all that comes of it: (records, specials, answers); its place is free again."""
        (place,) = self.put(head, source=source)
        records, specials = self.decode()
        answers = self.answers()
        assert all(answer[0] == place for answer in answers)
        self.connections.close_inner(place)
        return records, specials, [answer[1:] for answer in answers]

    def reply(self, *replies):
        """Let a frame of replies come; the answers."""
        many = self.codec.encode(frame_of(*replies))
        answers = self.answers()
        assert many == len(answers)
        return answers

    def counted(self, *places):
        values = self.codec.counters()
        return [values[place] for place in places] if len(places) > 1 else values[places[0]]


# Requests and their records


def head_of(target, *lines, method=b"GET", version=b"HTTP/1.1"):
    """A request's bytes from bytes."""
    return b"\r\n".join([b"%b %b %b" % (method, target, version), *lines, b"", b""])


def escape(value):
    return "".join(f"%{byte:02x}" for byte in value).encode()


def announce_query(info_hash=bytes(20), *more, port=6881, left=1):
    """A query that has all that is needed, and more pieces."""
    needed = b"info_hash=%b&peer_id=%b&port=%d&left=%d" % (escape(info_hash), PEER_ID, port, left)
    return b"&".join([needed, *more])


def announce_head(info_hash=bytes(20), *more, port=6881, left=1, lines=()):
    return head_of(b"/announce?" + announce_query(info_hash, *more, port=port, left=left), *lines)


def scrape_head(*info_hashes, lines=()):
    return head_of(b"/scrape?" + b"&".join(b"info_hash=" + escape(info_hash) for info_hash in info_hashes), *lines)


def ticket_of(place, number, host=HOST, options=0):
    """The ticket that the table of common/frames.py has for an announce."""
    return struct.pack("<HHIQQ16sQ", frames.TICKET_HTTP, options, place, BOOT, number, as_ipv6(host), 0)


def gather_ticket_of(gather, index, number):
    """The ticket of one hash of a scrape."""
    return struct.pack("<HHIQQ24x", frames.TICKET_HTTP_GATHER, index, gather, BOOT, number)


def announced(ticket, info_hash=bytes(20), **fields):
    """The record of an announce."""
    known = {"address": HOST, "want": 50, "both": True, "sip_hash": siphash(CLUSTER, info_hash)}
    return Request(info_hash, ticket=ticket, **known | fields).pack()


def scraped(ticket, info_hash):
    """The record of a scrape's hash."""
    hashed = struct.pack("<Q", siphash(CLUSTER, info_hash))
    return ticket + hashed + info_hash + bytes(18) + bytes([frames.EVENT_SCRAPE, 0])


# Replies and their answers


def frame_of(*replies):
    return HEADER.pack(frames.VERSION, frames.REPLIES, len(replies), 1, 2, 3) + b"".join(replies)


def pack_peers(peers):
    return b"".join(packed(host) + struct.pack(">H", port) for host, port in peers)


def announce_reply(ticket, fours=(), sixes=(), ipv6=False, counts=(3, 42, 5), interval=INTERVAL):
    """A reply to an announce; counts: leechers, completed, seeders."""
    own, other = (sixes, fours) if ipv6 else (fours, sixes)
    peers = pack_peers(own) + pack_peers(other)
    leechers, completed, seeders = counts
    length = frames.REPLY + len(peers)
    head = REPLY.pack(length, 0, 2 * ipv6, len(own), len(other), 0, completed, ticket)
    return head + struct.pack(">III", interval, leechers, seeders) + peers


def scrape_reply(ticket, seeders, completed, leechers, partial=0):
    """A reply to one hash of a scrape."""
    head = REPLY.pack(frames.REPLY, 0, 0, 0, partial & 0xFFFF, partial >> 16, completed, ticket)
    return head + struct.pack(">III", seeders, completed, leechers)


def answer_of(body, options=0, status=b"200 OK"):
    """The whole HTTP answer with a body, of a request with these options."""
    close = b"Connection: close\r\n" if options & CLOSE else b""
    head = b"HTTP/1.1 %b\r\nContent-Type: text/plain\r\n%bContent-Length: %d\r\n\r\n" % (status, close, len(body))
    return head if options & HEAD else head + body


def announce_body(host=HOST, counts=(3, 42, 5), interval=INTERVAL, **peers):
    """The body of an announce's answer; peers: the keys `peers` and `peers6`."""
    leechers, completed, seeders = counts
    values = {
        b"complete": seeders,
        b"downloaded": completed,
        b"external ip": packed(host),
        b"incomplete": leechers,
        b"interval": interval,
        b"min interval": interval // 2,
    }
    return encode(values | {name.encode(): value for name, value in peers.items()})


def failure_body(reason, retry="never", interval=INTERVAL):
    """The body of a failure: with `never`, the interval is the usual one; else that of `retry` minutes."""
    seconds = interval if retry == "never" else 60 * int(retry)
    values = {
        b"failure reason": reason.encode(),
        b"interval": seconds,
        b"min interval": seconds // 2 if retry == "never" else seconds,
        b"retry in": retry.encode(),
    }
    return encode(values)
