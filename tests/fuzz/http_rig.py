"""HTTP's codec on places without sockets: heads in, records out, replies in, answers out; runs repeat.

What must hold whatever comes in is asserted here; what comes out is kept in `transcript`.
"""

from http_bench import BOOT, Bench, announce_reply, frame_of, kernels_of, scrape_reply
from http_client import decode
from trackers import as_ipv6

from common import frames
from common.batch_io import allocate
from common.values import Network
from gateway.service import pack_networks

PROXIES = ["192.0.2.0/28", "2001:db8:5::/48"]
TRUSTED = ["127.0.0.0/8", "fd00::/8"]
PLACES = 8


class HttpRig(Bench):
    """kernel: a loader of kernels. tight: low limits, nobody trusted. litter: what lies in memory before."""

    def __init__(self, kernel, *, tight=False, litter=0):
        def littered(size, huge=0):
            view = allocate(size, huge)
            if size > 1 << 18 and size != 256 * 4096 and size != (1 << 14) * 96:  # where requests and answers lie
                view[: 1 << 16] = bytes([litter]) * (1 << 16)
            return view

        super().__init__(kernels_of(kernel), most=PLACES, depth=4, memory=littered)
        self.transcript = []
        self.open = {}  # by place: whether an answer without a body may come
        self.asked = []  # records that have not been replied to
        self.sources.set_secret(99)
        if tight:
            self.sources.set_limits(1, 3, 2, 6)
        else:
            self.sources.set_networks(*(pack_networks(map(Network, some)) for some in (TRUSTED, TRUSTED, PROXIES)))

    def note(self, *happened):
        self.transcript += happened

    def send(self, head, source):
        """Let a head come on a new connection; the oldest ends if there are too many."""
        if len(self.open) == PLACES:
            self.flush()
            self.close(next(iter(self.open)))
        head = head[:8704]
        (place,) = self.put(head, source=source)
        self.open[place] = b"HEAD" in head

    def close(self, place):
        del self.open[place]
        self.connections.close_inner(place)

    def flush(self):
        """Let the codec take the rows."""
        records, specials = self.decode()
        for record in records:
            self.check_record(record)
        self.note(*records, *specials)
        self.asked += records
        self.collect()

    def collect(self):
        """Take the answers; all of them are whole, and nobody is told more than one."""
        places = []
        for place, answer, after in self.answers():
            self.note(place, answer, after)
            places.append(place)
            check_answer(answer, self.open[place])
        assert len(set(places)) == len(places)

    def reply(self, index, fours, sixes, counts):
        """Reply to one of the records that wait."""
        if not self.asked:
            return
        record = self.asked.pop(index % len(self.asked))
        if record[:2] == frames.TICKET_HTTP.to_bytes(2, "little"):
            reply = announce_reply(record[:48], fours, sixes, record[94] & frames.FLAG_IPV6 != 0, counts)
        else:
            reply = scrape_reply(record[:48], *counts, counts[0] // 2)
        self.encode(frame_of(reply))

    def encode(self, frame):
        """Let a frame come, whatever it is."""
        many = self.codec.encode(frame)
        assert many == self.connections.answers
        self.note(many)
        self.collect()

    def advance(self, seconds):
        """Let time pass: tokens come back, replies are late."""
        self.flush()
        self.seconds += seconds
        self.now += 1_000_000 * seconds
        many = self.codec.expire(self.seconds, self.seconds)
        assert many == self.connections.answers
        self.collect()

    def finish(self):
        """Let all be late; returns the transcript."""
        self.advance(10)
        for place in list(self.open):
            self.close(place)
        self.note(*self.codec.counters())
        return self.transcript

    def check_record(self, record):
        """A record is of an open place, and its address is one that its flags say."""
        assert int.from_bytes(record[8:16], "little") == BOOT
        assert record[95] <= 200
        if record[94] & frames.EVENT_MASK == frames.EVENT_SCRAPE:
            assert record[24:48] == bytes(24)
            return
        assert int.from_bytes(record[4:8], "little") in self.open
        mapped = record[76:92].startswith(as_ipv6("0.0.0.0")[:12])
        assert mapped != bool(record[94] & frames.FLAG_IPV6)


def check_answer(answer, may_be_empty):
    """An answer's length is told, and its body is one bencoded value."""
    head, end, body = answer.partition(b"\r\n\r\n")
    assert end
    assert head.startswith(b"HTTP/1.1 ")
    length = int(head.rpartition(b" ")[2])
    assert length == len(body) or (may_be_empty and not body)
    if body:
        found = decode(body)
        assert b"peers" in found or b"files" in found or b"failure reason" in found
