"""The arena: blocks that are out never overlap, and all memory comes back."""

from collections.abc import Callable
from random import Random
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Kernel = Callable[[str], ModuleType]

MIB = 1 << 20
FRAME = 4096


class Filled:
    """An arena whose blocks are filled with what names them, so that an overlap is seen when they are freed."""

    def __init__(self, kernel: Kernel, frame_count: int) -> None:
        self.memory = memoryview(bytearray(frame_count * FRAME)).cast("Q")
        self.arena = kernel("shard.arena").Arena(self.memory.cast("B"))
        self.empty = self.arena.bytes_taken()
        self.out: dict[int, int] = {}

    def allocate(self, granules: int) -> bool:
        ref = self.arena.allocate(granules)
        if ref == 0:
            return False
        assert ref not in self.out
        assert ref >= FRAME // 8 and ref + granules <= len(self.memory)
        self.memory[ref : ref + granules] = memoryview(ref.to_bytes(8, "little") * granules).cast("Q")
        self.out[ref] = granules
        return True

    def release(self, ref: int) -> None:
        granules = self.out.pop(ref)
        assert self.memory[ref : ref + granules].tolist() == [ref] * granules
        self.arena.release(ref, granules)

    def release_all(self) -> None:
        for ref in list(self.out):
            self.release(ref)
        assert self.arena.bytes_taken() == self.empty


SIZES = st.one_of(st.integers(1, 80), st.integers(60, 300), st.integers(250, 2000), st.integers(2000, 30_000))


@settings(deadline=None, max_examples=60)
@given(
    frame_count=st.integers(2, 130),
    steps=st.lists(st.one_of(SIZES, st.floats(0, 1, exclude_max=True)), max_size=150),
)
def test_blocks_never_overlap_and_all_memory_returns(kernel: Kernel, frame_count: int, steps: list[float]) -> None:
    """A whole number allocates so many granules; a fraction frees the block that lies at that part of those out."""
    filled = Filled(kernel, frame_count)
    for step in steps:
        if isinstance(step, int):
            filled.allocate(step)
        elif filled.out:
            filled.release(list(filled.out)[int(step * len(filled.out))])
        assert filled.arena.bytes_taken() <= len(filled.memory) * 8 + frame_count * 17
    filled.release_all()


@pytest.mark.parametrize(
    "granules", [1, 5, 6, 16, 17, 64, 65, 72, 73, 255, 256, 257, 512, 513, 1025, 1536, 1537, 4096, 6144]
)
def test_an_arena_takes_blocks_of_a_size_till_it_is_full_and_again_when_emptied(kernel: Kernel, granules: int) -> None:
    filled = Filled(kernel, 64)
    counts = []
    for _ in range(2):
        while filled.allocate(granules):
            pass
        counts.append(len(filled.out))
        filled.release_all()
    assert counts[0] == counts[1]
    assert counts[0] * granules > 63 * FRAME // 8 * (0.8 if granules <= 512 else 0.45)


def test_a_flood_of_small_blocks_that_has_gone_leaves_room_for_large_ones(kernel: Kernel) -> None:
    filled = Filled(kernel, 256)
    random = Random(1)
    for most in (600, 300, 100, 30, 7):
        while filled.allocate(random.randrange(6, most)):
            pass
    assert not filled.allocate(513)
    refs = list(filled.out)
    random.shuffle(refs)
    for ref in refs:
        filled.release(ref)
    assert filled.allocate(128 * FRAME // 8)
    assert filled.allocate(64 * FRAME // 8)
    filled.release_all()


def test_a_page_whose_blocks_were_freed_serves_another_size(kernel: Kernel) -> None:
    filled = Filled(kernel, 2)
    while filled.allocate(6):
        pass
    assert not filled.allocate(7)
    for ref in list(filled.out)[1:]:
        filled.release(ref)
    assert not filled.allocate(7)
    filled.release(next(iter(filled.out)))
    assert filled.allocate(7)


def test_an_emptied_arena_of_16_mib_has_its_memory_in_runs_as_large_as_before(kernel: Kernel) -> None:
    filled = Filled(kernel, 16 * MIB // FRAME)
    random = Random(2)
    for _ in range(2000):
        filled.allocate(random.choice([6, 9, 65, 161, 700, 5000]))
    filled.release_all()
    assert filled.allocate(8 * MIB // 8)
    assert not filled.allocate(8 * MIB // 8)  # the first frame is not in use
    assert filled.allocate(4 * MIB // 8)
    filled.release_all()


def test_memory_that_is_not_whole_frames_is_refused(kernel: Kernel) -> None:
    make = kernel("shard.arena").Arena
    for length in (0, 4096, 8191, 3 * 4096 + 8):
        with pytest.raises(ValueError):
            make(bytearray(length))
    assert make(bytearray(8192)).bytes_taken() == FRAME + 17


def test_frames_and_what_is_kept_about_them_fit_into_the_memory_given(kernel: Kernel) -> None:
    module = kernel("shard.arena")
    for memory in (2 * MIB, 3 * MIB + 5):
        frame_count = module.frames_in(memory)
        filled = Filled(kernel, frame_count)
        while filled.allocate(1000) or filled.allocate(6):
            pass
        assert memory - 2 * FRAME < filled.arena.bytes_taken() <= memory


def test_doors_refuse_sizes_and_blocks_that_cannot_be(kernel: Kernel) -> None:
    arena = kernel("shard.arena").Arena(bytearray(8192))
    for granules in (0, -1, (512 << 23) + 1):
        with pytest.raises(ValueError):
            arena.allocate(granules)
    for ref in (0, 1024):
        with pytest.raises(ValueError):
            arena.release(ref, 1)
    assert arena.allocate(512 << 23) == 0
