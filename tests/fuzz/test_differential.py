"""The kernels compiled and uncompiled do the same, byte for byte: frames, what is sent, counters."""

import struct

from fuzz.rig import Rig
from fuzz.targets import SOURCES, info_hash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import VARIANTS
from trackers import ANNOUNCE, MAGIC, SCRAPE

numbers = st.one_of(st.sampled_from([0, 1, 2, 0xFFFF_FFFF_FFFF_FFFF]), st.integers(0, (1 << 64) - 1))
torrents = st.integers(0, 5).map(info_hash)
connects = st.binary(max_size=30).map(lambda tail: struct.pack(">QII", MAGIC, 0, 0) + tail)
announces = st.builds(
    lambda torrent, left, event, ip, want, port, tail: (
        struct.pack(">II", ANNOUNCE, 0)
        + torrent
        + struct.pack(">20xQQQI4sIiH", 0, left, 0, event, ip, 0, want, port)
        + tail
    ),
    torrents,
    numbers,
    st.one_of(st.integers(0, 5), st.integers(0, (1 << 32) - 1)),
    st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4)),
    st.one_of(st.integers(-1, 90), st.integers(-(1 << 31), (1 << 31) - 1)),
    st.one_of(st.integers(0, 5), st.integers(0, 65535)),
    st.binary(max_size=40),
)
scrapes = st.lists(torrents, max_size=80).map(lambda hashes: struct.pack(">II", SCRAPE, 0) + b"".join(hashes))
bodies = st.one_of(announces, announces, scrapes, st.binary(max_size=200))
ages = st.integers(-2, 4)  # of connection ids, in windows

steps = st.one_of(
    st.tuples(st.just("announce"), st.sampled_from(SOURCES), ages, bodies),
    st.tuples(st.just("raw"), st.sampled_from(SOURCES), st.one_of(connects, st.binary(max_size=200))),
    st.tuples(st.just("wait"), st.integers(0, 4000)),
    st.tuples(st.just("lose"), st.integers(0, 1)),
    st.tuples(st.just("rotate")),
    st.tuples(st.just("set_state"), st.integers(0, 1), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.integers(0, 1), st.integers(0, 3), st.sampled_from([1, 50, 10_000])),
)


def act(rig, what, *details):
    if what == "announce":
        source, age, body = details
        rig.send(source, rig.good_id(source, age) + body)
    elif what == "raw":
        rig.send(*details)
    elif what == "wait":
        rig.advance(*details)
    elif what == "lose":
        rig.deaf.add(*details)
    else:
        getattr(rig, what)(*details)


def transcript(kernel, options, script, litter):
    rig = Rig(kernel, **options, litter=litter)
    for step in script:
        act(rig, *step)
    return rig.finish()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    options=st.fixed_dictionaries({"tight": st.booleans(), "silent": st.booleans(), "cramped": st.booleans()}),
    script=st.lists(steps, min_size=1, max_size=60),
)
def test_compiled_and_uncompiled_kernels_agree(options, script):
    one, *others = [transcript(kernel, options, script, 0x55 * n) for n, kernel in enumerate(VARIANTS.values(), 1)]
    assert all(other == one for other in others)
