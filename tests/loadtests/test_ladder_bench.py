"""`make bench ARGS="ladder"`: medians, ratios of the same round, and what makes a row invalid."""

from collections import Counter
from subprocess import Popen
from typing import cast

import pytest

from loadtests import clusters, ladder_bench
from loadtests.clusters import OPENTRACKER, Run, Shape, Tracker
from loadtests.ladder_bench import Opened, Subject

FINE = {"errors": 0, "malformed": 0, "strangers": 0, "own": 0, "lost": 0, "sent": 10_000, "answers": 10_000}


def run(microseconds: float = 10.0, **found: float) -> Run:
    """A run of 10,000 answers that cost so much each."""
    told = FINE | {"rps": 50_000, "p50_us": 100, "p99_us": 1_000} | found
    return Run([told], Counter(gateway=int(microseconds * 10_000 * 1_000)))


def tracker(name: str, shape: Shape | None = None) -> Tracker:
    """One that does not run."""
    return Tracker(name, 0, cast("Popen[bytes]", None), shape)


def subject(name: str, shape: Shape | None = None, *, factor: float = 1.0, **found: float) -> Subject:
    """A tracker that needs a factor of the floor's cost and latency; rounds differ by as much for all."""
    made = Subject(tracker(name, shape))
    for noise in (1.0, 3.0, 1.5):
        costs = factor * noise
        latency = {"p50_us": 100 * costs, "p99_us": 1_000 * costs**2}
        for runs in made.closed.values():
            runs.append(run(10 * costs, **latency, **found))
        for rounds in made.opened.values():
            beside = run(p50_us=50 * noise, p99_us=500 * noise**2)
            rounds.append(Opened(25_000, run(10 * costs, **latency, **found), beside))
    return made


def test_ratios_are_of_the_same_round() -> None:
    """The floor's rounds differ by three times, as the tracker's do: no ratio is touched."""
    floor, twice = subject("floor"), subject("embedded", Shape("embedded"), factor=2)
    assert clusters.of_floor(floor.closed[16], twice.closed[16]) == pytest.approx([0.5, 0.5, 0.5])
    assert ladder_bench.times(twice.own(0.5), floor.own(0.5), "p50") == pytest.approx(2)
    assert ladder_bench.times(twice.own(0.5), floor.own(0.5), "p99") == pytest.approx(4)


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    own = [run(p50_us=value) for value in (100, 400, 900)]
    floor = [run(p50_us=value) for value in (100, 100, 300)]
    assert ladder_bench.times(own, floor, "p50") == 3  # of 1, 4, 3; the medians' ratio would be 4


def test_quartiles_are_of_all_values_and_of_a_single_one() -> None:
    assert clusters.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (1.5, 3.0, 4.5)
    assert clusters.quartiles([7.0]) == (7.0, 7.0, 7.0)


def test_lost_requests_are_a_share_of_those_of_all_rounds() -> None:
    assert ladder_bench.lost([run(lost=30, sent=1_000), run(lost=0, sent=2_000)]) == pytest.approx(0.01)


def test_a_light_load_leaves_one_by_one() -> None:
    assert ladder_bench.rate_options(0.01, 1_500.4) == ["-R", "1500", "-b", 1]
    assert ladder_bench.rate_options(0.5, 75_000.0) == ["-R", "75000"]


@pytest.mark.parametrize(
    ("name", "shape", "kind", "invalid"),
    [
        ("embedded", Shape("embedded"), "own", True),
        ("tcp", Shape("tcp"), "strangers", True),
        (OPENTRACKER, None, "own", False),  # it lists askers to themselves
        (OPENTRACKER, None, "strangers", True),
        ("floor", None, "strangers", False),  # its peers are made up
        ("floor", None, "malformed", True),
    ],
)
def test_a_row_is_invalid_by_one_wrong_answer(name: str, shape: Shape | None, kind: str, invalid: bool) -> None:
    wrong = clusters.judge(tracker(name, shape), [FINE, FINE | {kind: 1}])
    assert wrong == (f"INVALID: 1 {kind}" if invalid else "")


def test_one_lost_answer_in_a_thousand_is_allowed_and_more_are_not() -> None:
    asked = tracker("embedded", Shape("embedded"))
    assert clusters.judge(asked, [FINE, FINE | {"lost": 20}]) == ""
    assert clusters.judge(asked, [FINE, FINE | {"lost": 21}]) == "INVALID: 21 lost"


def test_invalid_rows_of_shoal_are_failures_and_those_of_opentracker_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    subjects = [
        subject("floor"),
        subject("embedded", Shape("embedded"), errors=1),
        subject(OPENTRACKER, lost=500),
    ]
    assert ladder_bench.show_closed(subjects) == len(ladder_bench.WINDOWS)
    assert ladder_bench.show_opened(subjects, 0.9) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "INVALID" in printed
    assert "5.000%" in printed


def test_what_is_asked_for_stands_beside_both_comparisons(capsys: pytest.CaptureFixture[str]) -> None:
    ladder_bench.print_asked([subject("floor"), subject("embedded", Shape("embedded"), factor=1.5)])
    printed = capsys.readouterr().out.splitlines()
    assert "p50 1.50 times, asked for: at most 2, p99 2.25 times, asked for: at most 3" in printed[0]
    assert "p50 3.00 times, asked for: at most 2, p99 4.50 times, asked for: at most 3" in printed[1]
