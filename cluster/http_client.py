"""A tracker's client over HTTP (BEP 3, 7, 23, 48): one question, one answer, everything checked.

Each request has a connection of its own, and is made once: TCP sends again what was lost. Redirects are not
followed: who asks a tracker wants to know what this one says.
"""

import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, RemoteDisconnected
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import bencode2

from cluster.client import (
    MOST_HASHES,
    TRIES,
    Address,
    Announce,
    Announced,
    Reply,
    Scraped,
    TrackerError,
    UsageError,
    first_answer,
    readable,
    unpack_peers,
)

MOST = 1 << 20  # bytes of an answer
HIGHEST = (1 << 32) - 1  # of counts and seconds, as over UDP
NAME = re.compile(rb"[0-9A-Za-z]([0-9A-Za-z.-]{0,252}[0-9A-Za-z.])?")


class Tracker(NamedTuple):
    """Where an `http://` URL points: its path, and its query, which stays in front of the parameters."""

    host: str
    port: int
    path: str
    query: str


def parse_url(url: str) -> Tracker:
    """The tracker that a URL names; one without a path has the usual ones. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    if parts.scheme != "http" or not host or port == 0 or parts.username is not None:
        raise UsageError(f"{url}: expected a URL such as http://tracker.example:6969/announce")
    if not re.fullmatch(r"[!-~]*", parts.path + parts.query):
        raise UsageError(f"{ascii(url)}: expected a URL without spaces, other characters than ASCII's as %xx")
    return Tracker(host, 80 if port is None else port, parts.path, parts.query)


def announce(tracker: Tracker, what: Announce, *, timeout: float = 1.0, source: str | None = None) -> Announced:
    """Announce to the first of the tracker's addresses that answers. Raises TrackerError, UsageError."""
    fields = [
        f"info_hash={quote(what.info_hash, safe='')}",
        f"peer_id=-SH0100-{secrets.token_hex(6)}",
        f"port={what.port}",
        f"uploaded=0&downloaded=0&left={what.left}",
        f"compact=1&key={secrets.token_hex(4)}",
    ]
    if what.event != "none":
        fields.append(f"event={what.event}")
    if what.want >= 0:
        fields.append(f"numwant={what.want}")
    path = "/announce" if tracker.path in ("", "/") else tracker.path
    return ask(tracker, target_of(path, tracker.query, fields), read_announced, timeout, source)


def scrape(
    tracker: Tracker, info_hashes: Sequence[bytes], *, timeout: float = 1.0, source: str | None = None
) -> list[Scraped]:
    """Scrape torrents, in the order given. Raises TrackerError, UsageError."""
    path = scrape_path(tracker.path)
    known: dict[bytes, Scraped] = {}
    distinct = list(dict.fromkeys(info_hashes))
    for at in range(0, len(distinct), MOST_HASHES):
        part = distinct[at : at + MOST_HASHES]
        target = target_of(path, tracker.query, [f"info_hash={quote(one, safe='')}" for one in part])
        known |= ask(tracker, target, partial(read_scraped, asked=part), timeout, source)
    return [known[one] for one in info_hashes]


def target_of(path: str, query: str, fields: list[str]) -> str:
    """Path and query of a request; the URL's own query comes first."""
    return f"{path}?{'&'.join([query, *fields] if query else fields)}"


def scrape_path(path: str) -> str:
    """Where a tracker scrapes, by the path of its announces (BEP 48), or the path itself. Raises UsageError."""
    before, _, last = path.rpartition("/")
    if path in ("", "/"):
        return "/scrape"
    if last.startswith("announce"):
        return f"{before}/scrape{last.removeprefix('announce')}"
    if last.startswith("scrape"):
        return path
    raise UsageError(f"{path}: expected a path whose last part begins with announce, or a tracker cannot be scraped")


class AnswerError(Exception):
    """What is wrong with an answer; the text goes on after "answered"."""


class Deadlined(socket.socket):
    """A socket whose reads end all together at `deadline`, however slowly a tracker drips."""

    deadline = 0.0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.settimeout(left)
        return super().recv_into(*arguments, **options)


def ask(
    tracker: Tracker,
    target: str,
    read: Callable[[dict[bytes, Any]], Reply],
    timeout: float,
    source: str | None,
) -> Reply:
    """Put a question to each address of a tracker until one answers; `read` makes a reply of its answer."""
    patience = TRIES * timeout

    def at(family: socket.AddressFamily, address: Address) -> Reply:
        who = f"{address[0]} port {address[1]}"
        try:
            with Deadlined(family, socket.SOCK_STREAM) as sock:
                sock.deadline = time.monotonic() + patience
                sock.settimeout(patience)
                if source:
                    sock.bind((source, 0))
                sock.connect(address)
                return read(get(sock, tracker, target))
        except TimeoutError:
            raise TrackerError(f"{who}: no answer in {patience:g} s") from None
        except AnswerError as error:
            raise TrackerError(f"{who} answered{error}") from None

    return first_answer(tracker.host, tracker.port, source, at)


def get(sock: socket.socket, tracker: Tracker, target: str) -> dict[bytes, Any]:
    """The dictionary that a tracker answers with. Raises AnswerError, OSError."""
    connection = HTTPConnection(tracker.host, tracker.port)
    connection.sock = sock
    try:
        connection.request("GET", target, headers={"User-Agent": "shoal", "Connection": "close"})
        with connection.getresponse() as response:
            body = response.read(MOST + 1)
            if len(body) > MOST:
                raise AnswerError(f" with more than {MOST} bytes")
            if response.length:  # what is still to come, of a length that was told
                raise AnswerError(f" with {len(body)} bytes, {response.length} fewer than it said")
    except RemoteDisconnected:
        raise AnswerError(" nothing, and closed the connection") from None
    except HTTPException as error:
        raise AnswerError(f" what is no HTTP: {readable(str(error).encode()) or type(error).__name__}") from None
    return read_body(response, body)


def read_body(response: HTTPResponse, body: bytes) -> dict[bytes, Any]:
    """The dictionary in an answer's body; the tracker's own error is an AnswerError."""
    try:
        answer = bencode2.bdecode(body)
    except ValueError as error:
        answer, why = None, str(error)
    reason = answer.get(b"failure reason") if isinstance(answer, dict) else None
    if isinstance(reason, bytes):
        raise AnswerError(f": {readable(reason)}")
    if response.status != 200:
        status = f"{response.status} {readable(response.reason.encode())}".rstrip()
        location = response.headers["Location"]
        to = f" to {readable(location.encode())}, where it was not followed" if location else ""
        raise AnswerError(f": {status}{to}")
    if answer is None:
        raise AnswerError(f" what is not bencoded: {readable(why.encode())}")
    if not isinstance(answer, dict) or reason is not None:
        raise AnswerError(" with what is no such answer")
    return answer


def read_announced(answer: dict[bytes, Any]) -> Announced:
    """The answer to an announce. Raises AnswerError."""
    for name in (b"min interval", b"downloaded"):
        number(answer, name, 0)
    for name in (b"tracker id", b"warning message"):
        if not isinstance(answer.get(name, b""), bytes):
            raise wrong(answer, name)
    if not has_length(answer.get(b"external ip", bytes(4)), 4, 16):
        raise wrong(answer, b"external ip")
    if b"peers" not in answer and b"peers6" not in answer:
        raise AnswerError(" without peers")
    peers = answer.get(b"peers", b"")
    found = [read_peer(peer) for peer in peers] if isinstance(peers, list) else unpack(answer, b"peers", 4)
    found += unpack(answer, b"peers6", 16)
    interval, leechers, seeders = (number(answer, name) for name in (b"interval", b"incomplete", b"complete"))
    return Announced(interval, leechers, seeders, found)


def unpack(answer: dict[bytes, Any], name: bytes, address: int) -> list[tuple[str, int]]:
    """Compact peers (BEP 7, BEP 23)."""
    packed = answer.get(name, b"")
    if not isinstance(packed, bytes) or len(packed) % (address + 2):
        raise wrong(answer, name)
    return unpack_peers(packed, address)


def read_peer(peer: object) -> tuple[str, int]:
    """A peer as a dictionary (BEP 3)."""
    if not isinstance(peer, dict):
        raise AnswerError(f" with a peer that is none: {shown(peer)}")
    port = number(peer, b"port")
    host = peer.get(b"ip")
    if port > 65535:
        raise wrong(peer, b"port")
    if not has_length(peer.get(b"peer id", bytes(20)), 20):
        raise wrong(peer, b"peer id")
    if not isinstance(host, bytes) or not (NAME.fullmatch(host) or b":" in host):
        raise wrong(peer, b"ip")
    try:
        return str(ipaddress.ip_address(host.decode("ascii"))), port
    except ValueError:
        if b":" in host:
            raise wrong(peer, b"ip") from None
    return host.decode("ascii"), port  # a name, which BEP 3 allows


def read_scraped(answer: dict[bytes, Any], asked: Sequence[bytes]) -> dict[bytes, Scraped]:
    """The answer to a scrape of these torrents. Raises AnswerError."""
    files = answer.get(b"files")
    if not isinstance(files, dict):
        raise wrong(answer, b"files")
    known = {}
    for info_hash, counts in files.items():
        if info_hash not in asked:
            raise AnswerError(f" for a torrent that nobody asked for: {shown(info_hash)}")
        if not isinstance(counts, dict):
            raise AnswerError(f" with counts that are none: {shown(counts)}")
        known[info_hash] = Scraped(*(number(counts, name) for name in (b"complete", b"downloaded", b"incomplete")))
    for info_hash in asked:
        if info_hash not in known:
            raise AnswerError(f" without torrent {info_hash.hex()}")
    return known


def number(answer: dict[bytes, Any], name: bytes, default: int | None = None) -> int:
    """A number that an answer must have, unless there is a default."""
    value = answer.get(name, default)
    if not isinstance(value, int) or not 0 <= value <= HIGHEST:
        raise wrong(answer, name)
    return value


def has_length(value: object, *lengths: int) -> bool:
    """Whether a value is a string of one of these lengths."""
    return isinstance(value, bytes) and len(value) in lengths


def wrong(answer: dict[bytes, Any], name: bytes) -> AnswerError:
    """What to raise for a value that cannot be, or is not there."""
    if name not in answer:
        return AnswerError(f" without {name.decode()}")
    return AnswerError(f" with an impossible {name.decode()}: {shown(answer[name])}")


def shown(value: object) -> str:
    """The beginning of a stranger's value."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
