"""Metainfo files (BEP 3), private (BEP 27): clients then ask nobody but the tracker, whatever their settings say."""

from hashlib import sha1, sha256
from typing import NamedTuple

PIECE = 64 << 10


class Torrent(NamedTuple):
    """A torrent of one file."""

    metainfo: bytes
    info_hash: bytes
    name: str
    data: bytes

    def is_in(self, file):
        """Whether a file holds the data."""
        return file.exists() and sha256(file.read_bytes()).digest() == sha256(self.data).digest()


def make_torrent(announce, name, data):
    """A private torrent of one file."""
    pieces = b"".join(sha1(data[at : at + PIECE]).digest() for at in range(0, len(data), PIECE))
    info = {"length": len(data), "name": name, "piece length": PIECE, "pieces": pieces, "private": 1}
    return Torrent(bencode({"announce": announce, "info": info}), sha1(bencode(info)).digest(), name, data)


def bencode(value):
    """Integers, text, bytes, and dictionaries of them."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        return bencode(value.encode())
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
