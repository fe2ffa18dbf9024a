"""A gateway's codec and two stores, joined without sockets; keys, secrets and clocks are fixed, so runs repeat.

What must hold whatever comes in is asserted here; what comes out is kept in `transcript`.
"""

import ctypes
import socket
import struct
from functools import cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from packing import pack_links, split_replies, unpack_chunk, unpack_endpoints, unpack_reply
from reference_store import is_local
from trackers import ANNOUNCE, CONNECT, ERROR, SCRAPE, pack_name, put

from common import frames
from common.batch_io import STRIDE, Batch, address_of

DEPTH = 8
LINKS = 2
SLICES = 4
WINDOW = 600
WINDOWS = 2
KEYS = bytes(range(16)), bytes(range(16, 32))
LIFETIME = 3270
ASKED = bytes([0, 0, 0, 0, 127, 0, 0, 9]), IPv6Address("2001:db8::9").packed  # as they lie in control messages
DEFAULT = 30  # peers in an answer to who names no number
MOST = 60
MOST6 = 67


class Source(NamedTuple):
    """Where a datagram comes from: an IPv6 socket if it has a colon."""

    host: str
    port: int

    @property
    def socket(self):
        return 1 if ":" in self.host else 0

    @property
    def ip(self):
        return parse_host(self.host)

    @property
    def packed(self):
        """The address as connection ids are made of it."""
        return self.ip.packed if self.ip.version == 6 else bytes(10) + b"\xff\xff" + self.ip.packed


class Request(NamedTuple):
    """A datagram on its way, and whether its connection id is good."""

    source: Source
    datagram: bytes
    proven: bool

    @property
    def transaction(self):
        return self.datagram[12:16]

    @property
    def action(self):
        return int.from_bytes(self.datagram[8:12], "big")

    @property
    def name(self):
        return name_of(self.source)

    @property
    def hashes(self):
        """How many a scrape is answered for."""
        return min(frames.MAX_UDP_SCRAPE, (len(self.datagram) - 16) // 20)

    @property
    def records(self):
        """How many records it may become."""
        if not self.proven or len(self.datagram) < 36:
            return 0
        return self.hashes if self.action == SCRAPE else 1

    def asker(self, trusting):
        """The endpoint that an announce speaks for: its IP field counts, if trusted and public (BEP 15)."""
        claimed = ip_address(self.datagram[84:88])
        port = int.from_bytes(self.datagram[96:98], "big")
        public = 0 < claimed.packed[0] < 224 and not is_local(str(claimed))
        return str(claimed if trusting and self.source.ip.version == 4 and public else self.source.ip), port


class Rig:
    """kernel: a loader of kernels. tight: low limits, nobody exempt or trusted. cramped: little memory.

    silent: no errors to bad connection ids. litter: what lies in memory that nobody wrote to.
    """

    def __init__(self, kernel, *, tight=False, cramped=False, silent=False, litter=0):
        self.tight = tight
        self.cramped = cramped
        self.litter = litter
        self.transcript = []
        self.now = 1_700_000_000
        self.serial = 0
        self.waiting = []
        self.unanswered = {}
        self.deaf = set()  # links whose next frame is lost
        self.rotations = 0
        self.rotated = 0
        self.siphash = kernel("gateway.siphash").siphash
        module = kernel("shard.slice_store")
        self.stores = [self._make_store(module, link) for link in range(LINKS)]
        most = frames.HEADER + 2 * frames.MAX_SCRAPE * module.LARGEST_REPLY
        self.replies = [memoryview(bytearray([litter]) * most) for _ in range(LINKS)]
        self.batch = Batch([socket.AF_INET, socket.AF_INET6], DEPTH)
        self.sendable = [self.batch.sent.data, *self.replies]  # memory that may be sent
        self.batch.address_of = self._may_be_sent
        self.codec = self._make_codec(kernel, not silent)
        self._set_keys()

    def _may_be_sent(self, view):
        """The codec asks where memory lies from which it will have datagrams sent."""
        self.sendable.append(view)
        return address_of(view)

    def _make_store(self, module, link):
        memory = memoryview(bytearray(4096 * (10 if self.cramped else 96)))
        limits = (3, 40) if self.tight else (65_535, 1 << 20)
        return module.SliceStore(memory, SLICES, 1800, LIFETIME, *limits, 77 + link)

    def _make_codec(self, kernel, answer_invalid):
        self.records = kernel("gateway.records").Records(self.batch.allocate, LINKS, SLICES, DEPTH)
        self.records.set_links(*pack_links([0, 1, 0, 1], [[1], [0], [], [0, 1]]))
        self.sources = kernel("gateway.sources").Sources(self.batch.allocate)
        self.sources.set_secret(99)
        codec = kernel("gateway.udp_codec").UdpCodec(
            self.batch, self.records, self.sources, DEFAULT, MOST, WINDOWS, answer_invalid
        )
        if self.tight:
            self.sources.set_limits(1, 3, 2, 12)
            codec.set_error_limit(1)
        else:
            self.sources.set_networks(bytes(32), bytes(32))
        return codec

    def _set_keys(self):
        current, old = KEYS[self.rotations % 2], KEYS[1 - self.rotations % 2]
        self.codec.set_keys(current, old if self.rotations else b"", self.rotated)

    # What can be done

    def good_id(self, source, back=0, old=False):
        """The connection id that a source got some windows ago, with the old key or this one."""
        key = KEYS[(self.rotations + old) % 2]
        return make_id(key, source.packed, self.now // WINDOW - back, self.siphash)

    def is_good_id(self, source, given):
        """Whether a source may use this id."""
        for back in range(-1, WINDOWS + 1):
            usable = self.rotations and self.now // WINDOW - back <= self.rotated
            if given == self.good_id(source, back) or (usable and given == self.good_id(source, back, old=True)):
                return True
        return False

    def send(self, source, datagram):
        """Let a datagram come. It gets a transaction id of its own, so that its answer is known."""
        if self.waiting and (len(self.waiting) == DEPTH or self.waiting[0].source.socket != source.socket):
            self.flush()
        if len(datagram) >= 16:
            self.serial += 1
            datagram = datagram[:12] + struct.pack(">I", self.serial) + datagram[16:2048]
        self.waiting.append(Request(source, datagram, self.is_good_id(source, datagram[:8])))

    def advance(self, seconds):
        """Let time pass: ids age, peers expire, scrapes are given up."""
        self.flush()
        self.now += seconds
        self.codec.expire_gathers(self.now * 1_000_000)
        for store in self.stores:
            self.note(store.sweep(self.now, 50), store.steps_of_a_round())

    def set_state(self, link, slice_id, state):
        """Let a store have another state of a slice."""
        self.flush()
        self.stores[link].set_state(slice_id, state)

    def drop(self, link, slice_id, budget):
        """Let a store forget some of a slice."""
        self.flush()
        store = self.stores[link]
        self.note(store.drop(slice_id, self.now, budget), store.dropped, store.arrivals)

    def rotate(self):
        """A new key for connection ids; those made with the one before stay good."""
        self.flush()
        self.rotations += 1
        self.rotated = self.now // WINDOW
        self._set_keys()

    def flush(self):
        """Let the codec take what came."""
        if not self.waiting:
            return
        index = self.waiting[0].source.socket
        self.unanswered |= {request.transaction: request for request in self.waiting if len(request.datagram) >= 16}
        for place, request in enumerate(self.waiting):
            self._receive(DEPTH * index + place, request)
        many = len(self.waiting)
        most = sum(request.records for request in self.waiting)
        done = records = 0
        while done < many:
            before = done
            done = self.codec.decode(index, done, many, self.now * 1_000_000, self.now // WINDOW)
            assert done > before
            records += self.dispatch()
            self.collect()
        assert records <= most
        self.waiting = []

    def finish(self):
        """Let the rest be answered, and look into the stores; returns the transcript."""
        self.flush()
        for store in self.stores:
            self.check_store(store)
            self.note(store.counters(), store.peers_by_kind(), store.swarm_count(), store.bytes_taken())
        self.note(self.codec.counters())
        return self.transcript

    def _receive(self, place, request):
        self.batch.received.data.cast("B")[STRIDE * place : STRIDE * (place + 1)] = bytes([self.litter]) * STRIDE
        put(self.batch, place, request.datagram, request.name)
        asked = ASKED[request.source.socket]
        self.batch.received.controls.cast("B")[48 * place + 16 : 48 * place + 16 + len(asked)] = asked

    # What must hold

    def note(self, *happened):
        self.transcript += happened

    def dispatch(self):
        """Hand the stores their frames, and the codec their replies; returns how many records there were but copies."""
        records = 0
        self.note(self.records.copy(bytes([1] * LINKS)))
        for link, store in enumerate(self.stores):
            length = self.records.close(link, self.serial, 2, 3)
            if not length:
                continue
            frame = bytes(self.records.view[self.records.frame_size * link :][:length])
            records += self.check_frame(frame)
            if link in self.deaf:
                self.deaf.remove(link)
            else:
                self.answer(store, frame, self.replies[link])
        return records

    def check_frame(self, frame):
        """Each record is of a request whose sender was proven; returns how many there are, but copies."""
        self.note(frame)
        assert (len(frame) - frames.HEADER) % frames.RECORD == 0
        many = 0
        for record in split(frame[frames.HEADER :], frames.RECORD):
            many += not record[frames.AT_EVENT] & frames.FLAG_NO_REPLY
            if record[:2] != b"\xff\xff":
                assert self.unanswered[record[44:48]].proven
        return many

    def answer(self, store, frame, replies):
        """Let a store answer a frame, and the codec take the replies, which stay until they are sent."""
        length = store.answer(frame, replies, self.now, self.serial)
        self.note(bytes(replies[:length]))
        check_replies(frame, bytes(replies[:length]))
        self.codec.encode(replies[:length], address_of(replies))

    def collect(self):
        """Take what the codec would send."""
        for index in range(2):
            first = 2 * DEPTH * index
            for place in range(first, first + self.codec.take_pending(index)):
                name, asked, answer = self.queued(place)
                self.note(name, asked, answer)
                request = self.unanswered.pop(answer[4:8])
                assert (index, name) == (request.source.socket, request.name)
                assert asked.startswith(ASKED[index])
                check_answer(request, answer)
                if answer[:4] == struct.pack(">I", ANNOUNCE):
                    check_peers(request, answer, not self.tight)

    def queued(self, place):
        """A datagram that would be sent: to whom, from what address, and what, which lies where it may."""
        address, length = self.batch.sent.iovecs[2 * place : 2 * place + 2]
        within = [(address_of(view), view.nbytes) for view in self.sendable]
        assert any(start <= address and address + length <= start + size for start, size in within)
        wide = place >= 2 * DEPTH
        name = bytes(self.batch.sent.names.cast("B")[32 * place :][: 32 if wide else 8]).ljust(32, b"\0")
        asked = bytes(self.batch.sent.controls.cast("B")[48 * place + 16 :][: 20 if wide else 12])
        return name, asked, ctypes.string_at(address, length)

    def check_store(self, store):
        """Dumps hold the swarms and peers that are counted, and merging them back changes nothing."""
        for slice_id in range(SLICES):
            swarms, peers, changes = set(), 0, store.changes_of(slice_id)
            for chunk in self.dump(store, slice_id):
                sections = unpack_chunk(chunk)
                swarms |= {(section.info_hash, section.tag) for section in sections}
                peers += sum(len(section.peers) for section in sections)
                assert store.load(slice_id, chunk, self.now) == 0
            self.note(store.state_of(slice_id), changes, store.asked_at(slice_id), *store.held(slice_id))
            assert store.changes_of(slice_id) == changes
            assert store.held(slice_id)[0] == len(swarms)
            assert sum(store.held(slice_id)[1:]) == peers
        totals = store.totals(bytes([1] * SLICES))
        assert totals[0] == store.swarm_count()
        assert totals[1:] == (sum(store.peers_by_kind()[::2]), sum(store.peers_by_kind()[1::2]))

    def dump(self, store, slice_id, cursor=bytes(32)):
        """The chunks of a slice from a cursor on."""
        cursor = memoryview(bytearray(cursor))
        out = memoryview(bytearray([self.litter]) * 4096)
        chunks = []
        while cursor[23] != 2:
            chunks.append(bytes(out[: store.dump(slice_id, cursor, out, self.now)]))
            assert len(chunks) < 10_000
        self.note(*chunks)
        return chunks


@cache
def parse_host(host):
    """An address; the IPv4 one if it is mapped."""
    address = ip_address(host)
    return getattr(address, "ipv4_mapped", None) or address


@cache
def name_of(source):
    return pack_name(*source).ljust(32, b"\0")


@cache
def make_id(key, packed, window, siphash):
    """The connection id of an address (protocol.md, 1.3)."""
    mac = siphash(key, b"\x01" + struct.pack(">Q", window) + packed)
    return bytes([window & 0xFF]) + mac.to_bytes(8, "little")[:7]


def split(data, length):
    return [data[at : at + length] for at in range(0, len(data), length)]


def check_replies(frame, reply):
    """A frame of replies adds up, and has one for each record that asks for one, in their order."""
    records = split(frame[frames.HEADER :], frames.RECORD)
    asking = [record for record in records if not record[frames.AT_EVENT] & frames.FLAG_NO_REPLY]
    replies = split_replies(reply)
    assert len(replies) == len(asking)
    for record, packed in zip(asking, replies, strict=True):
        is_scrape = record[frames.AT_EVENT] & frames.EVENT_MASK == frames.EVENT_SCRAPE
        found = unpack_reply(packed, is_scrape)
        assert found.ticket == record[: frames.TICKET]
        assert len(found.own) + len(found.other) <= min(record[frames.AT_WANT], frames.MAX_WANT)


def check_answer(request, answer):
    """An answer is of the request's kind and no longer than it may be; the unproven get no more than they sent."""
    action = int.from_bytes(answer[:4], "big")
    assert action in (request.action, ERROR)
    if not request.proven:
        assert action in (CONNECT, ERROR)
    if action == CONNECT:
        assert len(answer) == 16
    if action == ERROR or not request.proven:
        assert len(answer) <= len(request.datagram)
    if action == SCRAPE:
        assert len(answer) == 8 + 12 * request.hashes


def check_peers(request, answer, trusting):
    """An announce is answered with other peers that can be reached, as many as were wanted."""
    ipv6 = request.source.ip.version == 6
    host, port = request.asker(trusting)
    (want,) = struct.unpack_from(">i", request.datagram, 92)
    peers = unpack_endpoints(answer[20:], ipv6)
    assert len(peers) <= min(DEFAULT if want < 0 else want, MOST6 if ipv6 else MOST)
    assert len(set(peers)) == len(peers)
    assert (host, port) not in peers
    for peer_host, peer_port in peers:
        assert peer_port > 1
        assert is_local(host) or not is_local(peer_host)
