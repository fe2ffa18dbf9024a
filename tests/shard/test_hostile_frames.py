"""What comes over links and should not: dropped and counted; nothing is stored, fails, or goes on for ever."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import HEADER, Section, unpack_chunk
from shard_rig import FULL, NONE, PART, SLICES, Joined, peer_of

from common import frames
from common.control import Hello, pack_header, pack_hello
from common.life import TOO_OLD
from shard.copies import BODY, END, START, Timing

T = Timing()
SHARD2 = b"shard2"
BODY_AT = frames.HEADER
CHUNK_AT = frames.HEADER + BODY.size
MOST_CHUNKS = 20


class Giver:
    """A shard that holds much, and another that may ask for it."""

    def __init__(self):
        self.cluster = Joined(1, 2, replicas=1)
        self.cluster.settle()
        self.shard = self.cluster[1]
        for slice_id in (0, 1):
            for at in range(3):
                self.shard.announce(*(peer_of(slice_id, 1000 * at + number) for number in range(1, 1001)))
            self.shard.announce(*(peer_of(slice_id, number, torrent=number) for number in range(1, 200)))
            self.shard.announce(*(peer_of(slice_id, 1, address=f"2001:db8::{number:x}") for number in range(1, 300)))
        self.life = self.shard.machine.me.life
        self.shard.ping(SHARD2, frames.ROLE_SHARD, "shard2")

    def pull(self, slice_id=0, cursor=START, dump=(0, 0), number=9, boot=None, tick=None):
        """The frame that asks for a chunk."""
        boot = self.life.boot if boot is None else boot
        tick = self.cluster.now if tick is None else tick
        return pack_header(frames.PULL, number, boot, tick) + BODY.pack(slice_id, 0, *dump, cursor)

    def take(self, frame, sender=SHARD2):
        return self.shard.take(sender, frame)

    def dump(self, slice_id, cursor):
        """The chunks from a cursor on; their number is limited."""
        chunks = []
        while cursor[23] != 2:
            answer = self.take(self.pull(slice_id, cursor))
            cursor, chunk = self.check_slice(answer, slice_id)
            chunks.append(chunk)
            assert len(chunks) <= MOST_CHUNKS
        return chunks

    def check_slice(self, answer, slice_id):
        """The answer to a PULL adds up; its cursor and chunk."""
        version, kind, count, number, boot, tick = HEADER.unpack_from(answer)
        assert (version, kind, count, number, boot, tick) == (frames.VERSION, frames.SLICE, 0, 9, 900, 4321)
        assert len(answer) <= CHUNK_AT + frames.CHUNK
        found, _, _, _, cursor = BODY.unpack_from(answer, BODY_AT)
        assert found == slice_id
        assert cursor[23] in (1, 2)
        return cursor, unpack_chunk(answer[CHUNK_AT:])


@pytest.fixture(scope="module")
def shared():
    """For tests that change nothing."""
    return Giver()


@pytest.fixture
def giver(shared):
    """The same, with nothing counted."""
    shared.shard.machine.dropped.clear()
    shared.shard.ping(SHARD2, frames.ROLE_SHARD, "shard2")
    yield shared
    assert shared.shard.states == [FULL] * SLICES


def endpoints(chunks):
    return {(each.info_hash, endpoint) for chunk in chunks for each in chunk for endpoint, _, _ in each.peers}


# PULL


def test_a_whole_dump_has_all(giver):
    chunks = giver.dump(0, START)
    assert len(chunks) >= 2
    assert len(endpoints(chunks)) == 3000 + 199 + 299
    assert giver.shard.dropped == {}


def test_a_pull_of_any_other_length_is_malformed(giver):
    frame = giver.pull()
    for length in range(len(frame)):
        assert giver.take(frame[:length]) is None
    assert giver.take(frame + b"\0") is None
    assert giver.take(frame + bytes(9000)) is None
    assert giver.shard.dropped == {"malformed": len(frame) + 2}


@pytest.mark.parametrize("slice_id", [SLICES, 255, 65_535, (1 << 32) - 1])
def test_a_pull_of_a_slice_that_there_is_not_is_malformed(giver, slice_id):
    assert giver.take(giver.pull(slice_id)) is None
    assert giver.shard.dropped == {"malformed": 1}


@pytest.mark.parametrize("state", [3, 4, 127, 255])
def test_a_cursor_of_no_known_state_is_malformed(giver, state):
    assert giver.take(giver.pull(cursor=bytes(23) + bytes([state]) + bytes(8))) is None
    assert giver.shard.dropped == {"malformed": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"boot": 0}, "other_boot"),
        ({"boot": (1 << 64) - 1}, "other_boot"),
        ({"tick": 0}, "too_old"),
    ],
)
def test_a_pull_for_another_life_or_too_old_is_dropped(giver, changes, reason):
    giver.cluster.now = max(giver.cluster.now, TOO_OLD + 1)
    assert giver.take(giver.pull(**changes)) is None
    assert giver.shard.dropped == {reason: 1}


def test_a_pull_of_a_stranger_is_dropped(giver):
    assert giver.take(giver.pull(), sender=b"stranger") is None
    assert giver.shard.dropped == {"unknown_sender": 1}


@pytest.mark.parametrize("role", [frames.ROLE_OPERATOR, frames.ROLE_GATEWAY, 3, 255])
def test_a_pull_of_who_is_no_shard_is_dropped(giver, role):
    giver.shard.ping(b"other", role, "other")
    for frame in (giver.pull(), giver.pull(cursor=END), giver.pull()[:40]):
        assert giver.take(frame, sender=b"other") is None
    assert giver.shard.dropped == {"unexpected": 3}


def test_a_pull_of_another_cluster_is_dropped(giver):
    hello = Hello(1, 2, 1, 0, 12345, SLICES, frames.ROLE_SHARD, False, "shard2")
    giver.take(pack_hello(frames.PING, 1, hello), sender=b"other")
    assert giver.take(giver.pull(), sender=b"other") is None
    assert giver.shard.dropped == {"other_cluster": 1, "unknown_sender": 1}


a_cursor = st.tuples(
    st.one_of(
        st.binary(min_size=20, max_size=20), st.integers(0, 210).map(lambda number: peer_of(0, 1, number).info_hash)
    ),
    st.one_of(st.just(b"\0\0"), st.binary(min_size=2, max_size=2)),
    st.one_of(st.integers(0x80, 0x8F), st.integers(0xA0, 0xAF), st.integers(0, 255)),
    st.integers(0, 2),
    st.binary(min_size=8, max_size=8),
).map(lambda parts: parts[0] + parts[1] + bytes(parts[2:4]) + parts[4])


@settings(max_examples=150, deadline=None)
@given(cursor=a_cursor, slice_id=st.integers(0, 3), dump=st.tuples(*[st.integers(0, (1 << 64) - 1)] * 2))
def test_from_any_cursor_a_dump_comes_to_its_end(shared, cursor, slice_id, dump):
    before = shared.shard.store.changes_of(slice_id)
    if cursor[23] == 2:
        assert shared.take(shared.pull(slice_id, cursor, dump)) is None
    else:
        found = endpoints(shared.dump(slice_id, cursor))
        assert found <= endpoints(shared.dump(slice_id, START))
    assert shared.shard.store.changes_of(slice_id) == before


@settings(max_examples=300, deadline=None)
@given(
    frame=st.one_of(
        st.binary(max_size=300),
        st.tuples(
            st.sampled_from([0, 1, 1, 1, 2]), st.integers(0, 9), st.binary(max_size=200), st.booleans(), st.booleans()
        ),
    )
)
def test_no_frame_fails(shared, frame):
    """A header that may be right, and anything behind it."""
    if isinstance(frame, tuple):
        version, kind, rest, right_boot, fresh = frame
        boot, tick = shared.life.boot if right_boot else 5, shared.cluster.now if fresh else 0
        frame = HEADER.pack(version, kind, len(rest) // frames.RECORD, 9, boot, tick) + rest
    answer = shared.take(frame)
    assert answer is None or HEADER.unpack_from(answer)[0] == frames.VERSION
    for name in ("shard2", "shard9"):
        assert shared.shard.hear(name, frame) == []
    if SHARD2 not in shared.shard.machine.peers:
        shared.shard.ping(SHARD2, frames.ROLE_SHARD, "shard2")


def test_a_confirmation_of_what_is_not_here_is_nothing():
    cluster = Joined(1, 2)
    cluster.settle()
    shard = cluster[1]
    shard.ping(SHARD2, frames.ROLE_SHARD, "shard2")
    nothing = shard.states.index(NONE)
    boot = shard.machine.me.life.boot
    for dump in ((boot, 0), (boot, 1), (0, 0)):
        frame = pack_header(frames.PULL, 9, boot, cluster.now) + BODY.pack(nothing, 0, *dump, END)
        assert shard.take(SHARD2, frame) is None
    assert nothing not in shard.copies.slices
    assert shard.states[nothing] == NONE
    assert shard.dropped == {}


# SLICE


class Puller:
    """A shard that waits for a chunk; what it asked for."""

    def __init__(self):
        self.cluster = Joined(1)
        self.cluster[1].announce(*(peer_of(slice_id, number) for slice_id in range(SLICES) for number in range(1, 4)))
        self.cluster.edit(1, 2, version=2)
        self.shard = self.cluster[2]
        self.kept = []
        self.cluster.refuse = lambda source, to, kind: kind == frames.SLICE
        self.cluster.run(T.settle + 500)
        (self.source,) = self.shard.copies.sources.values()
        self.slice_id = self.source.pull.slice_id
        self.life = self.shard.machine.me.life

    def chunk(self, slice_id=None, number=None, boot=None, tick=None, dump=(77, 1), cursor=END, chunk=b""):
        slice_id = self.slice_id if slice_id is None else slice_id
        number = self.source.pull.number if number is None else number
        boot = self.life.boot if boot is None else boot
        tick = self.cluster.now if tick is None else tick
        return pack_header(frames.SLICE, number, boot, tick) + BODY.pack(slice_id, 0, *dump, cursor) + chunk

    def hear(self, frame, name="shard1"):
        return self.shard.hear(name, frame)

    def check(self):
        """The pull is still waited for, nothing was stored; and in the end all comes."""
        assert self.source.pull is not None
        assert self.shard.store.swarm_count() == 0
        assert self.shard.store.state_of(self.slice_id) == PART
        self.cluster.refuse = lambda source, to, kind: False
        self.cluster.settle()
        assert all(self.shard.peers(slice_id) == self.cluster[1].peers(slice_id) for slice_id in self.shard.wanted)


@pytest.fixture
def puller():
    return Puller()


SOME = Section(peer_of(0).info_hash, 0, frames.PUBLIC4, 3, ((("1.2.3.4", 5), 9, 0), (("1.2.3.4", 6), 9, 0)))


def test_a_chunk_that_was_asked_for_is_taken_and_confirmed(puller):
    own = Section(peer_of(puller.slice_id).info_hash, 0, frames.PUBLIC4, 3, SOME.peers)
    sent = puller.hear(puller.chunk(chunk=own.pack()))
    assert [name for name, _ in sent] == ["shard1", "shard1"]
    _, kind, _, _, boot, _ = HEADER.unpack_from(sent[0][1])
    assert (kind, boot) == (frames.PULL, puller.cluster[1].machine.me.life.boot)
    assert BODY.unpack_from(sent[0][1], BODY_AT) == (puller.slice_id, 0, 77, 1, END)
    assert BODY.unpack_from(sent[1][1], BODY_AT)[1:] == (0, 0, 0, START)
    assert puller.shard.store.held(puller.slice_id) == (1, 2, 0)


def test_a_chunk_cut_short_is_malformed(puller):
    frame = puller.chunk(chunk=SOME.pack())
    for length in range(len(frame)):
        if length != CHUNK_AT:
            assert puller.hear(frame[:length]) == []
    assert puller.shard.dropped == {"malformed": len(frame) - 1}
    puller.check()


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(b"\xff" * 30_000, id="ones"),
        pytest.param(bytes(29), id="a section and a byte"),
        pytest.param(SOME.pack() + b"\0", id="a byte more"),
        pytest.param(SOME.pack() + bytes(22) + b"\6\1\0\0\0\0" + bytes(21), id="an unknown kind"),
        pytest.param(SOME.pack()[:22] + b"\3" + SOME.pack()[23:], id="of the other family"),
        pytest.param(SOME.pack()[:23] + b"\xff" + SOME.pack()[24:], id="more peers, it says"),
    ],
)
def test_a_chunk_that_does_not_add_up_is_malformed(puller, chunk):
    for cursor in (END, bytes(23) + b"\1" + bytes(8)):
        assert puller.hear(puller.chunk(cursor=cursor, chunk=chunk)) == []
    assert puller.shard.dropped == {"malformed": 2}
    puller.check()


@pytest.mark.parametrize("changes", [{"slice_id": SLICES}, {"slice_id": (1 << 32) - 1}, {"cursor": b"\xff" * 32}])
def test_a_chunk_of_what_there_is_not_is_malformed(puller, changes):
    assert puller.hear(puller.chunk(chunk=SOME.pack(), **changes)) == []
    assert puller.shard.dropped == {"malformed": 1}
    puller.check()


@pytest.mark.parametrize(
    ("changes", "reason"), [({"boot": 0}, "other_boot"), ({"boot": 1}, "other_boot"), ({"tick": 0}, "too_old")]
)
def test_a_chunk_for_another_life_or_too_old_is_dropped(puller, changes, reason):
    assert puller.hear(puller.chunk(chunk=SOME.pack(), **changes)) == []
    assert puller.shard.dropped == {reason: 1}
    puller.check()


def test_a_chunk_that_nobody_asked_for_changes_nothing(puller):
    number = puller.source.pull.number
    other = next(slice_id for slice_id in range(SLICES) if slice_id != puller.slice_id)
    for frame in (
        puller.chunk(number=number - 1, chunk=SOME.pack()),
        puller.chunk(number=number + 1, chunk=SOME.pack()),
        puller.chunk(slice_id=other, chunk=SOME.pack()),
    ):
        assert puller.hear(frame) == []
    assert puller.hear(puller.chunk(chunk=SOME.pack()), name="shard2") == []
    assert puller.hear(puller.chunk(chunk=SOME.pack()), name="stranger") == []
    assert puller.shard.copies.counts["chunks"] == 0
    puller.check()


def test_a_chunk_that_a_giver_sends_to_a_shards_own_port_is_dropped(puller):
    puller.shard.ping(b"shard1", frames.ROLE_SHARD, "shard1")
    assert puller.shard.take(b"shard1", puller.chunk(chunk=SOME.pack())) is None
    assert puller.shard.dropped == {"unexpected": 1}
    puller.check()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_chunks_with_bytes_spoilt_bring_no_shard_down(seed):
    """Whatever a giver sends for a while, afterwards the slices are filled."""
    random = Random(seed)
    puller = Puller()
    for _ in range(40):
        if puller.source.pull is None:
            break
        slice_id = puller.source.pull.slice_id
        cursor = random.choice([END, START, random.randbytes(23) + b"\1" + random.randbytes(8)])
        own = Section(peer_of(slice_id).info_hash, 0, frames.PUBLIC4, 3, SOME.peers).pack()
        frame = bytearray(puller.chunk(slice_id=slice_id, cursor=cursor, chunk=own * random.randrange(4)))
        for _ in range(random.randrange(4)):
            frame[random.randrange(16 if random.random() < 0.1 else BODY_AT, len(frame))] = random.randrange(256)
        for name, sent in puller.hear(bytes(frame[: random.choice([len(frame)] * 4 + [random.randrange(len(frame))])])):
            assert name == "shard1"
            puller.cluster.carry("shard2", name, sent)  # the true giver's answer gets lost
    puller.cluster.refuse = lambda source, to, kind: False
    puller.cluster.settle()
    puller.cluster.run(T.soon + 3000)  # what it had said to be the end was not
    for slice_id in puller.shard.wanted:
        for info_hash, peers in puller.cluster[1].peers(slice_id).items():
            assert peers <= puller.shard.peers(slice_id)[info_hash]
    assert puller.cluster[1].dropped.keys() <= {"malformed"}
