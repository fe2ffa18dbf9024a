"""Scenarios as data, and their criteria as functions of what was found."""

import pytest

from loadtests.load import scenarios
from loadtests.load.scenarios import LATE, SCENARIOS, Latency, Result, Scenario

NAMED = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))


def result(answers=1000, p50=1.0, p99=5.0, seconds=10.0, rate=100.0, **more):
    """A result with announces over UDP."""
    latency = Latency(count=answers, p50=p50, p99=p99)
    late = Latency(count=5000, p50=0.1, p99=0.2)
    return Result(
        seconds=seconds, rate=rate, latencies={"UDP announce": latency, LATE: late}, announces=latency, **more
    )


def judged(criterion, **found):
    return criterion(found).passed


def test_there_is_a_scenario_for_each_name_that_was_asked_for():
    named = ["steady", "flash-crowd", "churn", "scrape-storm", "overload", "small-vps", "restart"]
    assert list(SCENARIOS) == named


@NAMED
def test_every_scenario_has_criteria_of_which_one_checks_the_answers(scenario):
    good = {
        phase: result(rate=99.0) for phase in ("load", "capacity", "overload", "afterwards", "floor", "floor again")
    }
    bad = {phase: result(faults={"stranger": 1}) for phase in good}
    passed = [criterion(good).passed for criterion in scenario.criteria]
    assert [criterion(bad).passed for criterion in scenario.criteria] != passed


@NAMED
def test_shares_of_every_part_make_sense(scenario):
    for part in scenario.parts:
        assert part.connects + part.scrapes <= 1
        assert part.stops + part.completes <= 1
        assert part.hashes <= part.torrents
        assert part.ports <= 65536 - 10_000


@NAMED
def test_every_peer_of_a_scenario_can_announce_before_it_is_due_again(scenario):
    for part in scenario.parts:
        assert part.sources * part.ports > part.rate * 1.5


def test_the_delay_of_the_load_itself_is_no_answer():
    assert result(answers=7).answers == 7


def test_one_wrong_answer_is_one_too_many():
    assert judged(scenarios.right("load"), load=result())
    assert not judged(scenarios.right("load"), load=result(faults={"few": 1}))
    assert not judged(scenarios.right("load", "after"), load=result(), after=result(faults={"own": 1}))


def test_no_answers_are_not_right_answers():
    assert not judged(scenarios.right("load"), load=result(answers=0))


def test_what_is_lost_is_no_wrong_answer():
    assert judged(scenarios.right("load"), load=result(faults={"lost": 5}))


def test_wrong_answers_are_named_with_how_many_there_were():
    verdict = scenarios.right("load")({"load": result(faults={"few": 3, "stranger": 1200})})
    assert verdict.figure == "3 few, 1,200 stranger, of 1,000"


def test_a_request_without_an_answer_fails_the_load():
    assert judged(scenarios.answered(), load=result(totals={"first lost": 9}))
    assert not judged(scenarios.answered(), load=result(totals={"lost": 1}))
    few = result()
    assert judged(scenarios.answered(), load=result(totals={"sent": few.answers + int(few.rate / 2)}))
    died = result(totals={"sent": few.answers + int(3 * few.rate)})
    assert died.waiting == int(3 * few.rate)
    assert not judged(scenarios.answered(), load=died)


def test_a_peer_that_is_not_known_again_fails():
    assert judged(scenarios.known(), afterwards=result())
    assert not judged(scenarios.known(), afterwards=result(totals={"unsure": 1}))


def test_a_share_of_first_tries_may_be_lost():
    assert judged(scenarios.few_lost(0.01), load=result(totals={"first lost": 10}))
    assert not judged(scenarios.few_lost(0.01), load=result(totals={"first lost": 11}))


def test_a_load_must_have_been_as_large_as_planned():
    assert judged(scenarios.kept_up(0.97), load=result(answers=970))
    assert not judged(scenarios.kept_up(0.97), load=result(answers=940))


def test_what_came_since_drivers_looked_last_is_not_missed():
    assert judged(scenarios.kept_up(0.97), load=result(answers=945))


def test_announces_must_come_in_time():
    assert judged(scenarios.within(1, 5), load=result())
    assert not judged(scenarios.within(0.9, 5), load=result())
    assert not judged(scenarios.within(1, 4), load=result())


def floors(before, after):
    return {"floor": result(p50=before), "floor again": result(p50=after)}


def test_the_median_is_held_against_the_floors():
    assert judged(scenarios.beside(2), load=result(p50=2.0), **floors(0.5, 1.5))
    assert not judged(scenarios.beside(2), load=result(p50=2.1), **floors(0.5, 1.5))


def test_a_floor_without_answers_is_no_floor():
    assert not judged(scenarios.beside(2), load=result(), **floors(1, 1) | {"floor again": result(answers=0)})


def test_goodput_is_a_share_of_capacity():
    assert judged(scenarios.goodput(0.7), overload=result(answers=700, rate=300), capacity=result())
    verdict = scenarios.goodput(0.7)({"overload": result(answers=690, rate=300), "capacity": result()})
    assert not verdict.passed
    assert "3.0 x capacity" in verdict.asked


def test_empty_answers_are_none_of_what_an_overloaded_tracker_still_does():
    empty = result(answers=1000, totals={"empty": 301})
    assert not judged(scenarios.goodput(0.7), overload=empty, capacity=result())
    assert judged(scenarios.goodput(0.7), overload=result(totals={"empty": 300}), capacity=result())


def test_an_overload_is_told_by_what_was_sent():
    found = {"overload": result(rate=300, totals={"sent": 2000}), "capacity": result()}
    assert "2.0 x capacity" in scenarios.goodput(0.7)(found).asked


def test_memory_may_grow_by_so_much_and_must_be_known():
    before = result(resident={"gateway": 50.0, "shard": 50.0})
    assert judged(scenarios.bounded(64), capacity=before, overload=result(resident={"shard": 164.0}))
    assert not judged(scenarios.bounded(64), capacity=before, overload=result(resident={"shard": 165.0}))
    assert not judged(scenarios.bounded(64), capacity=before, overload=result())


def test_a_scale_multiplies_rates_torrents_and_peers():
    steady = SCENARIOS["steady"]
    before, after = steady.parts[0], scenarios.scaled(steady, 0.5).parts[0]
    assert (after.rate, after.torrents) == (before.rate / 2, before.torrents // 2)
    assert after.ports == before.ports // 2
    assert after.skew == before.skew


def test_a_tiny_scale_leaves_torrents_enough_for_a_scrape():
    for part in scenarios.scaled(SCENARIOS["scrape-storm"], 0.001).parts:
        assert part.torrents >= part.hashes


def test_parts_are_dealt_out_so_that_each_worker_has_a_share_of_each():
    steady = SCENARIOS["steady"]
    parts = scenarios.scaled(steady, 1, workers=2).parts
    # User k of worker w is number w + 2 * k, and does the part of that number.
    assert [part.kind for part in parts[0::2]] == [part.kind for part in steady.parts]
    assert [part.kind for part in parts[1::2]] == [part.kind for part in steady.parts]
    assert sum(part.rate for part in parts) == pytest.approx(sum(part.rate for part in steady.parts))


def test_a_scenario_stays_what_it_is_when_scaled():
    scaled = scenarios.scaled(SCENARIOS["churn"], 0.1)
    assert isinstance(scaled, Scenario)
    assert scaled.criteria == SCENARIOS["churn"].criteria
