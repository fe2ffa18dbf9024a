"""PING, PONG and STATUS, checked against the table in common/frames.py."""

import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import control, frames
from common.control import FrameError, Header, Hello
from common.values import Name

U8, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
NAMES = st.from_regex(Name.FORM, fullmatch=True)
HELLOS = st.builds(
    Hello,
    boot=U64,
    tick=U64,
    version=U64,
    table=U64,
    cluster=U64,
    slices=U32,
    role=U8,
    stopping=st.booleans(),
    name=NAMES,
    last=U64,
    states=st.binary(max_size=300),
    report=st.binary(max_size=300),
)
KINDS = st.sampled_from([frames.PING, frames.PONG])
HELLO = Hello(1, 2, 3, 4, 5, 6, 7, True, "one", 8, b"st", b"{}")
AT_FLAGS, AT_NAME_LENGTH, AT_STATES_LENGTH, AT_REPORT_LENGTH = 77, 78, 88, 92


def ping(hello=HELLO, kind=frames.PING, number=9):
    return bytearray(control.pack_hello(kind, number, hello))


def unpack(frame):
    return control.unpack_hello(memoryview(bytes(frame)))


@given(KINDS, U64, HELLOS)
def test_what_is_packed_is_unpacked(kind, number, hello):
    frame = memoryview(control.pack_hello(kind, number, hello))
    assert control.header(frame) == Header(frames.VERSION, kind, 0, number, 0, 0)
    assert control.unpack_hello(frame) == hello


@given(U64, HELLOS)
def test_a_pong_lies_as_the_table_says(number, hello):
    frame = control.pack_hello(frames.PONG, number, hello)
    assert struct.unpack_from("<HHIQQQ", frame) == (frames.VERSION, frames.PONG, 0, number, 0, 0)
    for at, form, value in (
        (32, "<Q", hello.boot),
        (40, "<Q", hello.tick),
        (48, "<Q", hello.version),
        (56, "<Q", hello.table),
        (64, "<Q", hello.cluster),
        (72, "<I", hello.slices),
        (76, "<B", hello.role),
        (AT_FLAGS, "<B", int(hello.stopping)),
        (AT_NAME_LENGTH, "<H", len(hello.name)),
        (80, "<Q", hello.last),
        (AT_STATES_LENGTH, "<I", len(hello.states)),
        (AT_REPORT_LENGTH, "<I", len(hello.report)),
    ):
        assert struct.unpack_from(form, frame, at) == (value,), at
    assert frame[96:] == hello.name.encode() + hello.states + hello.report


@given(U64, U64, U64)
def test_a_header_lies_as_the_table_says(number, boot, tick):
    frame = control.pack_header(frames.STATUS, number, boot, tick)
    assert struct.unpack("<HHIQQQ", frame) == (frames.VERSION, frames.STATUS, 0, number, boot, tick)
    assert control.header(memoryview(frame)) == Header(frames.VERSION, frames.STATUS, 0, number, boot, tick)


@pytest.mark.parametrize("length", range(frames.HEADER))
def test_a_frame_shorter_than_its_header_is_refused(length):
    with pytest.raises(FrameError, match="shorter than its header"):
        control.header(memoryview(bytes(ping()))[:length])


@pytest.mark.parametrize("version", [0, 2, 256, 0xFFFF])
def test_a_frame_of_another_version_is_refused(version):
    frame = ping()
    struct.pack_into("<H", frame, 0, version)
    with pytest.raises(FrameError, match="another version"):
        control.header(memoryview(frame))


@pytest.mark.parametrize("length", [0, frames.HEADER - 1, frames.HEADER, 95])
def test_a_ping_without_all_its_numbers_is_refused(length):
    with pytest.raises(FrameError, match="too short"):
        unpack(ping()[:length])


@given(st.data())
def test_a_ping_cut_short_or_drawn_out_is_refused(data):
    frame = bytes(ping())
    if data.draw(st.booleans()):
        frame = frame[: data.draw(st.integers(0, len(frame) - 1))]
    else:
        frame += data.draw(st.binary(min_size=1))
    with pytest.raises(FrameError):
        unpack(frame)


@pytest.mark.parametrize(
    ("at", "form", "is_now"),
    [(AT_NAME_LENGTH, "<H", 3), (AT_STATES_LENGTH, "<I", 2), (AT_REPORT_LENGTH, "<I", 2)],
)
@pytest.mark.parametrize("change", [-1, 1, "most"])
def test_a_ping_whose_lengths_do_not_add_up_is_refused(at, form, is_now, change):
    frame = ping()
    assert struct.unpack_from(form, frame, at) == (is_now,)
    most = (1 << 8 * struct.calcsize(form)) - 1
    struct.pack_into(form, frame, at, most if change == "most" else is_now + change)
    with pytest.raises(FrameError, match="length is not that of its parts"):
        unpack(frame)


def test_lengths_may_not_add_up_by_going_around():
    frame = ping(HELLO._replace(states=b"", report=b""))
    struct.pack_into("<II", frame, AT_STATES_LENGTH, 1, 0xFFFF_FFFF)
    with pytest.raises(FrameError, match="length is not that of its parts"):
        unpack(frame)


def test_a_name_has_at_most_63_bytes():
    assert unpack(ping(HELLO._replace(name="x" * 63))).name == "x" * 63
    with pytest.raises(FrameError):
        unpack(ping(HELLO._replace(name="x" * 64)))


def test_a_name_that_is_not_ascii_is_refused():
    with pytest.raises(FrameError, match="not ASCII"):
        unpack(ping(HELLO._replace(name="knöt")))


@pytest.mark.parametrize("name", ["", "-", ".one", "one two", "one\n", "one\x1b[2J", "a/b"])
def test_a_name_that_no_process_may_have_is_refused(name):
    with pytest.raises(FrameError, match="not one that a process may have"):
        unpack(ping(HELLO._replace(name=name)))


def test_a_report_of_64_kib_is_the_longest():
    assert len(unpack(ping(HELLO._replace(report=b"x" * (1 << 16)))).report) == 1 << 16
    frame = ping(HELLO._replace(report=b"x" * (1 << 16))) + b"x"
    struct.pack_into("<I", frame, AT_REPORT_LENGTH, (1 << 16) + 1)
    with pytest.raises(FrameError):
        unpack(frame)


def test_a_report_that_nobody_would_take_is_left_out():
    """The ping matters more: without it the process would not be heard."""
    assert unpack(ping(HELLO._replace(report=b"x" * ((1 << 16) + 1)))) == HELLO._replace(report=b"")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_hello_or_a_frame_error(frame):
    for read in (control.header, control.unpack_hello):
        with contextlib.suppress(FrameError):
            read(memoryview(frame))


def test_flags_of_later_versions_mean_nothing():
    frame = ping(HELLO._replace(stopping=False))
    frame[AT_FLAGS] = 0xFE
    assert unpack(frame) == HELLO._replace(stopping=False)


# States


@given(st.lists(st.integers(0, 3), max_size=70))
def test_states_are_two_bits_a_slice(states):
    packed = control.pack_states(states)
    assert len(packed) == control.states_length(len(states)) == (2 * len(states) + 7) // 8
    assert [control.state_of(packed, slice_id) for slice_id in range(len(states))] == states
    whole = sum(state << (2 * slice_id) for slice_id, state in enumerate(states))
    assert int.from_bytes(packed, "little") == whole


# Reports


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_a_report_is_read(told):
    assert control.read_report(json.dumps(told).encode()) == told


@pytest.mark.parametrize(
    "report", [b"", b"{", b"[]", b"1", b"null", b"\xff\xfe", b"\x80", b"[" * 60_000, b'{"a":' * 12_000]
)
def test_a_report_that_cannot_be_read_says_nothing(report):
    assert control.read_report(report) == {}
