"""PING, PONG and STATUS: the frames by which processes know of each other. Layouts: common/frames.py.

They are few (two a second and link), so they are packed and unpacked here, in Python.
"""

from __future__ import annotations

import json
from struct import Struct
from typing import Any, NamedTuple

from common import frames
from common.values import Name

HEADER = Struct("<HHIQQQ")
BODY = Struct("<QQQQQIBBHQII")
LONGEST_NAME = 63
LONGEST_REPORT = 1 << 16
assert HEADER.size == frames.HEADER


class FrameError(ValueError):
    """A frame that does not add up."""


class Header(NamedTuple):
    """The first 32 bytes of a frame; boot and tick are the receiver's, as the sender has heard of them."""

    version: int
    kind: int
    records: int
    number: int
    boot: int
    tick: int


class Hello(NamedTuple):
    """A PING or PONG: who sends it, in which life and configuration, and what it has.

    boot: random, of this life. tick: milliseconds of its own clock. version, table: of its configuration, and a digest
    of the owners of slices that it yields. cluster: a digest of the cluster's key. last: of a pong, the number of
    the last frame of records heard. states: of a pong, 2 bits a slice. report: JSON for the operator.
    """

    boot: int
    tick: int
    version: int
    table: int
    cluster: int
    slices: int
    role: int
    stopping: bool
    name: str
    last: int = 0
    states: bytes = b""
    report: bytes = b""


def header(frame: memoryview) -> Header:
    """The header of a frame. Raises FrameError."""
    if len(frame) < frames.HEADER:
        raise FrameError("a frame is shorter than its header")
    head = Header(*HEADER.unpack_from(frame))
    if head.version != frames.VERSION:
        raise FrameError("a frame of another version")
    return head


def pack_header(kind: int, number: int, boot: int = 0, tick: int = 0) -> bytes:
    """The header of a frame without records."""
    return HEADER.pack(frames.VERSION, kind, 0, number, boot, tick)


def pack_hello(kind: int, number: int, hello: Hello) -> bytes:
    """A PING or PONG; without its report if that is longer than others take."""
    name = hello.name.encode()
    flags = frames.IS_STOPPING if hello.stopping else 0
    report = hello.report if len(hello.report) <= LONGEST_REPORT else b""
    body = BODY.pack(*hello[:7], flags, len(name), hello.last, len(hello.states), len(report))
    return pack_header(kind, number) + body + name + hello.states + report


def unpack_hello(frame: memoryview) -> Hello:
    """What a PING or PONG says. Raises FrameError."""
    start = frames.HEADER + BODY.size
    if len(frame) < start:
        raise FrameError("a ping is too short")
    *known, flags, name_length, last, states_size, report_size = BODY.unpack_from(frame, frames.HEADER)
    length = start + name_length + states_size + report_size
    if len(frame) != length or report_size > LONGEST_REPORT or name_length > LONGEST_NAME:
        raise FrameError("a ping's length is not that of its parts")
    try:
        name = str(frame[start : start + name_length], "ascii")
    except UnicodeDecodeError:
        raise FrameError("a ping's name is not ASCII") from None
    if not Name.FORM.fullmatch(name):
        raise FrameError("a ping's name is not one that a process may have")
    at = start + name_length
    states = bytes(frame[at : at + states_size])
    boot, tick, version, table, cluster, slices, role = known
    stopping = bool(flags & frames.IS_STOPPING)
    report = bytes(frame[at + states_size :])
    return Hello(boot, tick, version, table, cluster, slices, role, stopping, name, last, states, report)


def states_length(slices: int) -> int:
    """Bytes that the states of so many slices take."""
    return (slices + 3) // 4


def pack_states(states: list[int]) -> bytes:
    """2 bits a slice."""
    packed = bytearray(states_length(len(states)))
    for slice_id, state in enumerate(states):
        packed[slice_id // 4] |= state << (2 * (slice_id % 4))
    return bytes(packed)


def state_of(states: bytes, slice_id: int) -> int:
    """The state of one slice."""
    return states[slice_id // 4] >> (2 * (slice_id % 4)) & 3


def read_report(report: bytes) -> dict[str, Any]:
    """What a report says; nothing if it cannot be read, as of another version."""
    try:
        told = json.loads(report or b"{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
