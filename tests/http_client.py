"""A raw HTTP client for tests, and bencode (BEP 3) without mercy.

Written from the protocol's text: it shares no code with the tracker. A response must tell its length, and what
follows it is the next response. Both are stricter than any real client, so that tests see what these forgive.
"""

import socket
from typing import NamedTuple
from urllib.parse import quote

PATIENCE = 20.0
PEER_ID = b"-TR4060-0123456789ab"
COMPACT = {"peers": (socket.AF_INET, 6), "peers6": (socket.AF_INET6, 18)}


class Response(NamedTuple):
    """One response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes = b""

    @property
    def answer(self):
        """The bencoded body."""
        return decode(self.body)


# Requests


def escape(value):
    """A parameter's value: bytes, text or a number."""
    return quote(value if isinstance(value, bytes) else str(value), safe="")


def query(*pairs):
    """A query of (name, value) pairs; those whose value is None are left out."""
    return "&".join(f"{name}={escape(value)}" for name, value in pairs if value is not None)


def announce_target(info_hash, **fields):
    """Path and query of an announce as most clients have it; a field that is None is left out."""
    wanted = {"peer_id": PEER_ID, "port": 6881, "uploaded": 0, "downloaded": 0, "left": 1, "compact": 1, **fields}
    return "/announce?" + query(("info_hash", info_hash), *wanted.items())


def scrape_target(*info_hashes):
    return "/scrape?" + query(*(("info_hash", info_hash) for info_hash in info_hashes))


def request(target, *headers, method="GET", version="HTTP/1.1"):
    """A request's bytes; headers are whole lines. Targets may be text or bytes, and are sent as they are."""
    line = b"%b %b %b" % (method.encode(), target if isinstance(target, bytes) else target.encode(), version.encode())
    lines = [line, b"Host: tracker.example", *(header.encode("latin-1") for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class HttpClient:
    """A TCP connection to the tracker at `address`, from `source` if it is given."""

    def __init__(self, address, source=None):
        self.address = address
        self.ipv6 = ":" in address[0]
        self.socket = socket.socket(socket.AF_INET6 if self.ipv6 else socket.AF_INET)
        self.buffer = b""
        try:
            self.socket.settimeout(PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Its port lingers a minute after it; a tracker may listen there.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if source is not None:
                self.socket.bind((source, 0))
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self.endpoint = self.socket.getsockname()[:2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(1 << 16)
        assert data, f"the connection ended after {self.buffer!r}"
        self.buffer += data

    def receive(self, method="GET"):
        """The next response. One to HEAD tells a length and has no body."""
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        status, headers = parse_head(head)
        assert "transfer-encoding" not in headers
        length = headers["content-length"]
        assert length == str(int(length))
        many = 0 if method == "HEAD" else int(length)
        while len(self.buffer) < many:
            self._more()
        body, self.buffer = self.buffer[:many], self.buffer[many:]
        return Response(status, headers, body, head)

    def ask(self, data, method="GET"):
        """Send bytes; the one response to them."""
        self.send(data)
        response = self.receive(method)
        assert self.buffer == b""
        return response

    def get(self, target, *headers, method="GET", version="HTTP/1.1"):
        """The response to a request with no more headers than these and Host."""
        return self.ask(request(target, *headers, method=method, version=version), method)

    def ended(self):
        """Whether the tracker closed the connection and sent nothing more; waits for either."""
        return self.buffer == b"" and self.socket.recv(1) == b""

    def announce(self, info_hash, *headers, **fields):
        """Announce with good manners; the answer."""
        response = self.get(announce_target(info_hash, **fields), *headers)
        assert response.status == 200
        answer = response.answer
        assert b"failure reason" not in answer, answer
        return answer

    def refused(self, target, *headers):
        """The answer to what must be refused, in the way that a refusal has."""
        response = self.get(target, *headers)
        assert response.status == 200
        assert b"failure reason" in response.answer, response.body
        return response.answer

    def scrape(self, *info_hashes):
        """Scrape with good manners; {info-hash: (complete, downloaded, incomplete)}."""
        response = self.get(scrape_target(*info_hashes))
        assert response.status == 200
        files = response.answer[b"files"]
        names = (b"complete", b"downloaded", b"incomplete")
        return {key: tuple(counts[name] for name in names) for key, counts in files.items()}


# Responses


def parse_head(head):
    """Status and headers of a response's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version in {"HTTP/1.0", "HTTP/1.1"}
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon
        assert name == name.strip()
        assert name.lower() not in headers
        headers[name.lower()] = value.strip()
    return int(status), headers


def peers_of(answer):
    """The peers of an announce's answer, of both families and in either form, as (address, port)."""
    if isinstance(answer[b"peers"], list):
        assert b"peers6" not in answer
        return [(peer[b"ip"].decode("ascii"), peer[b"port"]) for peer in answer[b"peers"]]
    found = []
    for name, (family, stride) in COMPACT.items():
        packed = answer.get(name.encode(), b"")
        assert len(packed) % stride == 0
        for at in range(0, len(packed), stride):
            entry = packed[at : at + stride]
            found.append((socket.inet_ntop(family, entry[:-2]), int.from_bytes(entry[-2:], "big")))
    return found


# Bencode


class BencodeError(ValueError):
    """Not the one way to write a value."""


def decode(data):
    """The value that is written in all of `data`: int, bytes, list, or dict with keys of bytes."""
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise BencodeError(f"bytes follow the value: {data[end:]!r}")
    return value


def _decode(data, at, depth):
    if depth > 8:
        raise BencodeError("deeper than Transmission reads")
    kind = data[at : at + 1]
    if kind == b"i":
        end = data.find(b"e", at)
        return _integer(data[at + 1 : end] if end > 0 else b""), end + 1
    if kind == b"l":
        return _list(data, at + 1, depth)
    if kind == b"d":
        return _dictionary(data, at + 1, depth)
    return _string(data, at)


def _integer(digits):
    try:
        value = int(digits)
    except ValueError:
        raise BencodeError(f"no integer: {digits!r}") from None
    if digits != b"%d" % value:
        raise BencodeError(f"not the canonical integer: {digits!r}")
    return value


def _string(data, at):
    colon = data.find(b":", at)
    if colon < 0:
        raise BencodeError(f"no value: {data[at:]!r}")
    length = _integer(data[at:colon])
    end = colon + 1 + length
    if length < 0 or end > len(data):
        raise BencodeError(f"no string of {length} bytes: {data[at:]!r}")
    return data[colon + 1 : end], end


def _list(data, at, depth):
    values = []
    while data[at : at + 1] != b"e":
        value, at = _decode(data, at, depth + 1)
        values.append(value)
    return values, at + 1


def _dictionary(data, at, depth):
    values = {}
    last = None
    while data[at : at + 1] != b"e":
        key, at = _string(data, at)
        if last is not None and key <= last:
            raise BencodeError(f"keys not in order, or twice: {last!r}, {key!r}")
        last = key
        values[key], at = _decode(data, at, depth + 1)
    return values, at + 1


def encode(value):
    """The one way to write a value."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encode, value))
    return b"d%be" % b"".join(encode(key) + encode(value[key]) for key in sorted(value))
