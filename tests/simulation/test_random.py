"""Random schedules, a part of them in each test, so that both processes of a test run have some to do."""

from collections import Counter

import pytest
from plans import draw, run, shrink
from run import RARE, rare, simulate

MANY = 2000
PARTS = 20


@pytest.fixture(scope="module")
def counts():
    return Counter()


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_is_kept(part, counts):
    many = MANY // PARTS
    found, _, broken = simulate(part * many, many)
    counts.update(found)
    assert not broken, "make simulate replays a seed: ARGS='--seed SEED --shrink'"


def test_no_mechanism_is_rare(counts):
    assert rare(counts, MANY) == []
    assert set(RARE) <= set(counts)


def test_a_seed_replays():
    runs = [run(draw(11))[0] for _ in range(2)]
    assert runs[0].world.counts == runs[1].world.counts
    assert runs[0].world.number == runs[1].world.number


def test_each_schedule_has_what_it_must_have():
    for seed in range(300):
        plan = draw(seed)
        names = [event[1] for event in plan.events]
        assert len(plan.weights) >= 3
        assert len(plan.gateways) >= 2
        assert names.count("announce") >= 50
        assert names.count("edit") >= 1
        assert sum(name in ("cut", "reset", "slow", "pause", "stop", "crash") for name in names) >= 2


def test_a_plan_that_fails_is_made_smaller():
    plan = draw(5)
    wanted = [event for event in plan.events if event[1] == "edit"]
    smaller = shrink(plan, lambda other: all(event in other.events for event in wanted))
    assert list(smaller.events) == wanted


def test_mechanisms_that_do_not_occur_are_told():
    assert len(rare(Counter(), 1000)) == len(RARE)
