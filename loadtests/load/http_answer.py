"""What a tracker answers over HTTP: heads as RFC 9112, bodies as BEP 3, 7, 23 and 48 have them, and no laxer."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import bencode2

LONGEST_HEAD = 8192
LONGEST_BODY = 1 << 20
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?")
_LENGTH = re.compile(rb"\d{1,7}")


class MalformedError(ValueError):
    """Not what the protocols have."""


class RefusedError(Exception):
    """A failure reason in place of an answer."""


class Head(NamedTuple):
    """What counts of a response's head."""

    status: int
    length: int  # of the body
    closes: bool


class Announced(NamedTuple):
    """The answer to an announce. Endpoints lie one behind the other, 6 or 18 bytes each."""

    seeders: int
    leechers: int
    listed4: bytes
    listed6: bytes


@lru_cache(1024)  # of one tracker they differ in the length alone
def read_head(head: bytes) -> Head:
    """Read a head, without the empty line that ends it. Raises MalformedError."""
    status_line, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(status_line)
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name or name.strip() != name:
            raise MalformedError("header")
        if name in headers and name == b"content-length":
            raise MalformedError("two lengths")
        headers[name] = value.strip()
    length = _LENGTH.fullmatch(headers.get(b"content-length", b""))
    coded = b"transfer-encoding" in headers or b"content-encoding" in headers
    if status is None or length is None or int(length[0]) > LONGEST_BODY or coded:
        raise MalformedError("head")
    return Head(int(status[1]), int(length[0]), headers.get(b"connection", b"").lower() == b"close")


def read_announce(status: int, body: bytes) -> Announced:
    """Read the body of an answer. Raises MalformedError and RefusedError."""
    answer = _decode(status, body)
    if _count(answer, b"interval") < 1:
        raise MalformedError("interval")
    listed4, listed6 = answer.get(b"peers", b""), answer.get(b"peers6", b"")
    if not isinstance(listed4, bytes) or not isinstance(listed6, bytes) or len(listed4) % 6 or len(listed6) % 18:
        raise MalformedError("peers")
    if b"peers" not in answer and b"peers6" not in answer:
        raise MalformedError("no peers")
    return Announced(_count(answer, b"complete"), _count(answer, b"incomplete"), listed4, listed6)


def read_scrape(status: int, body: bytes, hashes: list[bytes]) -> list[tuple[int, int]]:
    """Read seeders and leechers of what was asked for, in that order.

    A tracker may leave out torrents that it does not know: none of each. Raises MalformedError and RefusedError.
    """
    files = _decode(status, body).get(b"files")
    if not isinstance(files, dict) or not files.keys() <= set(hashes):
        raise MalformedError("files")
    found = []
    for info_hash in hashes:
        counts = files.get(info_hash)
        if counts is None:
            found.append((0, 0))
        elif isinstance(counts, dict):
            _count(counts, b"downloaded")
            found.append((_count(counts, b"complete"), _count(counts, b"incomplete")))
        else:
            raise MalformedError("counts")
    return found


def _decode(status: int, body: bytes) -> dict[bytes, object]:
    """The dictionary of a body."""
    try:
        answer = bencode2.bdecode(body)
    except (ValueError, TypeError) as error:
        raise MalformedError(str(error)) from error
    if not isinstance(answer, dict):
        raise MalformedError("no dictionary")
    if b"failure reason" in answer:
        raise RefusedError
    if status != 200:
        raise MalformedError(f"status {status}")
    return answer


def _count(values: dict[bytes, object], key: bytes) -> int:
    """A number that is not below 0."""
    value = values.get(key)
    if not isinstance(value, int) or value < 0:
        raise MalformedError(key.decode())
    return value
