import pytest

from common import life
from common.life import STALL, TOO_OLD, Life


def a_life(now=1000):
    boots = iter(range(100, 200))
    return Life(now, lambda: next(boots))


def test_a_process_that_beats_lives_on():
    lived = a_life()
    for now in range(1000, 100_000, STALL - 1):
        assert not lived.beat(now)
    assert (lived.boot, lived.stalls) == (100, 0)


def test_a_process_that_stood_still_for_two_seconds_begins_another_life():
    lived = a_life()
    assert not lived.beat(1000 + 1999)
    assert lived.beat(2999 + 2000)
    assert (lived.boot, lived.stalls) == (101, 1)
    assert not lived.beat(5000)
    assert lived.beat(5000 + 3_600_000)
    assert (lived.boot, lived.stalls) == (102, 2)


def test_a_frame_for_this_life_is_taken():
    assert a_life().refuses(100, 1000, 1000) == ""
    assert a_life().refuses(100, 1000, 1000 + TOO_OLD) == ""


def test_a_frame_for_another_life_is_not():
    lived = a_life()
    for boot in (0, 99, 101):
        assert lived.refuses(boot, 1000, 1000) == "other_boot"
    lived.beat(10_000)
    assert lived.refuses(100, 10_000, 10_000) == "other_boot"
    assert lived.refuses(101, 10_000, 10_000) == ""


def test_a_frame_that_was_under_way_for_over_five_seconds_is_not():
    assert a_life().refuses(100, 1000, 1000 + 5001) == "too_old"
    assert a_life().refuses(99, 1000, 1000 + 5001) == "other_boot"


def test_boots_are_random_and_never_the_one_that_stands_for_none():
    boots = {life.random_boot() for _ in range(100)}
    assert len(boots) == 100
    assert all(0 < boot < 1 << 64 for boot in boots)
    assert Life(0).boot != Life(0).boot


def test_the_smallest_boot_that_can_be_drawn_is_not_none(monkeypatch):
    monkeypatch.setattr(life.secrets, "randbits", lambda bits: 0)
    assert life.random_boot() != 0


def test_the_clock_never_goes_back():
    seen = [life.milliseconds() for _ in range(1000)]
    assert seen == sorted(seen)


@pytest.mark.parametrize("late", [True, False])
def test_a_lived_process_is_not_woken_by_time_alone(late):
    """Who beats twice in a row after a stall begins one life, not two."""
    lived = a_life()
    lived.beat(60_000)
    assert not lived.beat(60_000 + late)
    assert lived.stalls == 1
