"""A tracker's client over UDP (BEP 15, BEP 41): one question, one answer, everything checked.

A request is sent again, with the same transaction id, when no answer came in time. Packets that are no answer to
it are passed over; an answer that breaks the protocol is an error.
"""

import base64
import ipaddress
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

PROTOCOL_ID = 0x41727101980
CONNECT, ANNOUNCE, SCRAPE, ERROR = range(4)
EVENTS = {"none": 0, "completed": 1, "started": 2, "stopped": 3, "paused": 4}
MOST_HASHES = 74  # in one scrape
URL_DATA = 2
TRIES = 3

Reply = TypeVar("Reply")
Address = tuple[str, int] | tuple[str, int, int, int]


class UsageError(ValueError):
    """What was asked for makes no sense; the text says what was expected."""


class TrackerError(Exception):
    """No answer, a wrong one, or the tracker's own error; the text says which."""


class Tracker(NamedTuple):
    """Where a `udp://` URL points; `url_data` is its path and query as the URL has them."""

    host: str
    port: int
    url_data: bytes


class Announce(NamedTuple):
    """What is announced. `want` is how many peers are asked for, -1 as many as the tracker likes."""

    info_hash: bytes
    event: str = "none"
    left: int = 0
    port: int = 6881
    want: int = -1


class Announced(NamedTuple):
    """The answer to an announce: seconds until the next, counts, and peers as (address, port)."""

    interval: int
    leechers: int
    seeders: int
    peers: list[tuple[str, int]]


class Scraped(NamedTuple):
    """The answer to a scrape for one torrent."""

    seeders: int
    completed: int
    leechers: int


def parse_url(url: str) -> Tracker:
    """The tracker that a URL names. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    if parts.scheme in ("https", "ws", "wss"):
        raise UsageError(f"{url}: this version speaks udp:// and http:// only")
    if parts.scheme != "udp" or not host or not port:
        raise UsageError(f"{url}: expected a URL such as udp://tracker.example:6969/announce")
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    return Tracker(host, port, rest.encode())


def parse_info_hash(text: str) -> bytes:
    """20 bytes from 40 hex digits or 32 base32 characters. Raises UsageError."""
    if re.fullmatch(r"[0-9A-Fa-f]{40}", text):
        return bytes.fromhex(text)
    if re.fullmatch(r"[A-Za-z2-7]{32}", text):
        return base64.b32decode(text.upper())
    raise UsageError(f"{text}: expected an info-hash, 40 hex digits or 32 base32 characters")


def announce(tracker: Tracker, what: Announce, *, timeout: float = 1.0, source: str | None = None) -> Announced:
    """Announce to the first of the tracker's addresses that answers. Raises TrackerError, UsageError."""
    return ask(tracker, lambda conversation: conversation.announce(what, tracker.url_data), timeout, source)


def scrape(
    tracker: Tracker, info_hashes: Sequence[bytes], *, timeout: float = 1.0, source: str | None = None
) -> list[Scraped]:
    """Scrape torrents, in the order given. Raises TrackerError, UsageError."""

    def all_parts(conversation: Conversation) -> list[Scraped]:
        parts = [info_hashes[at : at + MOST_HASHES] for at in range(0, len(info_hashes), MOST_HASHES)]
        return [one for part in parts for one in conversation.scrape(part)]

    return ask(tracker, all_parts, timeout, source)


def ask(tracker: Tracker, question: "Callable[[Conversation], Reply]", timeout: float, source: str | None) -> Reply:
    """Put a question to each address of a tracker until one answers."""

    def at(family: socket.AddressFamily, address: Address) -> Reply:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if source:
                sock.bind((source, 0))
            sock.connect(address)
            return question(Conversation(sock, timeout))

    return first_answer(tracker.host, tracker.port, source, at)


def first_answer(
    host: str, port: int, source: str | None, ask_at: Callable[[socket.AddressFamily, Address], Reply]
) -> Reply:
    """Ask at one address of a tracker after the other until one answers; else the last failure."""
    failure = None
    for family, address in resolve(host, port, source):
        try:
            return ask_at(family, address)
        except TrackerError as error:
            failure = error
        except OSError as error:
            failure = TrackerError(f"{address[0]} port {address[1]}: {error.strerror or error}")
    assert failure is not None  # there is an address
    raise failure


def resolve(host: str, port: int, source: str | None) -> list[tuple[socket.AddressFamily, Address]]:
    """The addresses behind a tracker's name, those of the source's family if there is one.

    Raises TrackerError if there is none, UsageError.
    """
    family = socket.AF_UNSPEC
    if source:
        try:
            family = socket.AF_INET if ipaddress.ip_address(source).version == 4 else socket.AF_INET6
        except ValueError:
            raise UsageError(f"{source}: expected an IP address") from None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise TrackerError(f"{host}: {getattr(error, 'strerror', None) or 'not a host name'}") from None
    addresses = [(one[0], one[4]) for one in found if family in (socket.AF_UNSPEC, one[0])]
    if not addresses:
        raise TrackerError(f"{host} has no address of the family of {source}")
    return addresses  # type: ignore[return-value]


class Conversation:
    """Requests and answers over one connected UDP socket."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self.sock = sock
        self.timeout = timeout  # seconds until a request is sent again
        self.who = "{} port {}".format(*sock.getpeername())
        self.connection_id = b""

    def connect(self) -> None:
        """Get a connection id; it lives for a minute at least, so one serves a conversation."""
        body = self.exchange(struct.pack(">Q", PROTOCOL_ID), CONNECT, b"")
        if len(body) != 8:
            raise self.broken(CONNECT, body)
        self.connection_id = body

    def announce(self, what: Announce, url_data: bytes) -> Announced:
        if not self.connection_id:
            self.connect()
        peer_id = b"-SH0100-" + secrets.token_hex(6).encode()
        counts = struct.pack(">QQQI", 0, what.left, 0, EVENTS[what.event])
        tail = struct.pack(">I4siH", 0, secrets.token_bytes(4), what.want, what.port)
        body = what.info_hash + peer_id + counts + tail + url_data_options(url_data)
        answer = self.exchange(self.connection_id, ANNOUNCE, body)
        address = 4 if self.sock.family == socket.AF_INET else 16
        if len(answer) < 12 or (len(answer) - 12) % (address + 2):
            raise self.broken(ANNOUNCE, answer)
        interval, leechers, seeders = struct.unpack_from(">III", answer)
        return Announced(interval, leechers, seeders, unpack_peers(answer[12:], address))

    def scrape(self, info_hashes: Sequence[bytes]) -> list[Scraped]:
        """Counts of at most MOST_HASHES torrents."""
        if not self.connection_id:
            self.connect()
        answer = self.exchange(self.connection_id, SCRAPE, b"".join(info_hashes))
        if len(answer) != 12 * len(info_hashes):
            raise self.broken(SCRAPE, answer)
        return [Scraped(*counts) for counts in struct.iter_unpack(">III", answer)]

    def exchange(self, head: bytes, action: int, body: bytes) -> bytes:
        """Send a request until it is answered: what follows action and transaction id. Raises TrackerError."""
        tid = secrets.token_bytes(4)
        request = head + struct.pack(">I", action) + tid + body
        for _ in range(TRIES):
            self.sock.send(request)
            reply = self.receive(tid)
            if reply is not None:
                return self.checked(reply, action)
        raise TrackerError(f"{self.who}: no answer to {TRIES} requests in {TRIES * self.timeout:g} s")

    def receive(self, tid: bytes) -> bytes | None:
        """The first packet with this transaction id, None if the time is over before it comes."""
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                packet = self.sock.recv(65_535)
            except TimeoutError:
                return None
            if len(packet) >= 8 and packet[4:8] == tid:
                return packet
        return None

    def checked(self, reply: bytes, action: int) -> bytes:
        """The body of a reply of this action. Raises TrackerError."""
        (replied,) = struct.unpack_from(">I", reply)
        if replied == ERROR:
            raise TrackerError(f"{self.who} answered: {readable(reply[8:])}")
        if replied != action:
            raise TrackerError(f"{self.who} answered action {action} with action {replied}")
        return reply[8:]

    def broken(self, action: int, body: bytes) -> TrackerError:
        return TrackerError(f"{self.who} answered action {action} with {len(body) + 8} bytes, which is no such answer")


def readable(raw: bytes) -> str:
    """A stranger's text for an operator's terminal."""
    text = raw.rstrip(b"\0").decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)[1:-1]


def unpack_peers(packed: bytes, address: int) -> list[tuple[str, int]]:
    """Addresses of 4 or 16 bytes, each followed by a port."""
    peers = struct.iter_unpack(f">{address}sH", packed)
    return [(str(ipaddress.ip_address(raw)), port) for raw, port in peers]


def url_data_options(url_data: bytes) -> bytes:
    """BEP 41: the URL's path and query in options of at most 255 bytes; nothing if there is none."""
    chunks = [url_data[at : at + 255] for at in range(0, len(url_data), 255)]
    return b"".join(bytes((URL_DATA, len(chunk))) + chunk for chunk in chunks)
