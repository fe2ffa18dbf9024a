"""`make bench ARGS="growth"`: a law is found again from what it made, and what was kept tells the same as the run."""

import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from loadtests import cluster_cost
from loadtests.cluster_cost import Deviations, Law, Point, Sample, Size, deviations, find_laws, fit

LAW = Law(7.0, 280.0, 170.0)
ROOT = Path(cluster_cost.__file__).parents[1]


def sample(law: Law, frames: float, turns: float, factor: float = 1.0) -> Sample:
    """What a law makes of frames and turns, times a factor."""
    cost = factor * law.foretell(Sample(1.0, 0.0, 0.0, frames, turns))
    return Sample(cost, 0.6 * cost, 0.4 * cost, frames, turns)


def made_up(gateways: int, shards: int, law: Law = LAW, factor: float = 1.0) -> Size:
    """A size that obeys a law, times a factor: rounds at each window differ, and their median obeys."""
    samples = {}
    for window in (16, 64, 256, 1024):
        turns = gateways**0.5 / window
        frames = turns * min(shards, window / gateways) ** 0.9
        samples[window] = [sample(law, frames, turns, factor * noise) for noise in (1.05, 1.0, 0.9)]
    return Size(gateways, shards, {"gateway": 0.003 * gateways, "shard": 0.007 * shards}, samples)


def cluster_sizes(law: Law = LAW) -> list[Size]:
    return [made_up(*size, law) for size in ((1, 1), (1, 4), (2, 2), (4, 8))]


def points(sizes: list[Size]) -> list[Point]:
    return [point for size in sizes for point in size.points()]


def test_a_law_of_three_terms_is_found_again() -> None:
    assert find_laws(cluster_sizes()).three == pytest.approx(LAW, rel=1e-9)


def test_a_law_of_two_terms_is_found_again_from_all_sizes_and_from_each_alone() -> None:
    laws = find_laws(cluster_sizes(Law(7.0, 335.0)))
    assert laws.two == pytest.approx((7.0, 335.0, 0.0), rel=1e-9)
    assert laws.three == pytest.approx((7.0, 335.0, 0.0), rel=1e-9, abs=1e-7)
    assert [law.b for law in laws.alone] == pytest.approx([335.0] * 4, rel=1e-9)


def test_turns_that_are_nearly_frames_cost_no_precision() -> None:
    alike = [
        Point("1 x 1", number, sample(LAW, frames, frames * (1 + 1e-8 * (number % 3))))
        for number, frames in enumerate((0.1, 0.05, 0.02, 0.01, 0.004, 0.002, 0.001))
    ]
    assert fit(alike, 3) == pytest.approx(LAW, rel=1e-4)


@pytest.mark.parametrize("terms", [2, 3])
def test_the_law_has_the_least_squares_of_what_points_are_off_by_relatively(terms: int) -> None:
    noisy = points([made_up(*size, factor=1 + 0.1 * n) for n, size in enumerate(((1, 1), (1, 4), (2, 2), (4, 8)))])
    best = fit(noisy, terms)

    def squares(law: Law) -> float:
        return sum((law.foretell(point.sample) / point.sample.cost - 1) ** 2 for point in noisy)

    for term in range(terms):
        for change in (0.999, 1.001):
            assert squares(best) < squares(Law(*(x * change if n == term else x for n, x in enumerate(best))))


@pytest.mark.parametrize("terms", [2, 3])
def test_points_that_leave_a_term_open_are_refused(terms: int) -> None:
    """Turns equal frames, or all is the same: no terms can be told, rather than any."""
    frames = (0.1, 0.02, 0.003, 0.0007) if terms == 3 else (0.1,) * 4
    alike = [Point("1 x 1", n, sample(LAW, f, f)) for n, f in enumerate(frames)]
    with pytest.raises(ValueError, match="too much alike"):
        fit(alike, terms)
    with pytest.raises(ValueError, match="too few points"):
        fit(alike[: terms - 1], terms)


def test_deviations_of_a_size_are_from_the_law_of_all() -> None:
    off = made_up(2, 2, factor=1.2)
    off.samples[64] = [sample(LAW, 0.05, 0.04, 0.7)]
    found = deviations(off.points(), LAW)
    assert found == Deviations(pytest.approx((3 * 0.2 + 0.3) / 4), off.points()[1], pytest.approx(1.2))


def test_a_point_is_the_median_of_its_rounds() -> None:
    size = Size(1, 2, {}, {16: [Sample(c, c / 2, c / 4, c / 8, c / 16) for c in (8.0, 64.0, 16.0)]})
    assert size.points() == [Point("1 x 2", 16, Sample(16.0, 8.0, 4.0, 2.0, 1.0))]


def test_what_was_kept_prints_what_the_run_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = cluster_sizes()
    cluster_cost.save(sizes, tmp_path / "points")
    failed = cluster_cost.report(sizes, find_laws(sizes), None)
    printed = capsys.readouterr().out
    kept = cluster_cost.read(str(tmp_path / "points"))
    assert kept == sizes
    assert cluster_cost.report(kept, find_laws(kept), None) == failed == 0
    assert capsys.readouterr().out == printed
    assert f"three terms: {LAW}" in printed


def test_a_size_that_the_law_does_not_foretell_fails(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*cluster_sizes(), *cluster_sizes(), made_up(4, 2, factor=1.3)]
    laws = find_laws(sizes)
    assert cluster_cost.print_factors(sizes, laws.three) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "not within 10%" in line]
    assert len(lines) == 1
    assert "4 x 2" in lines[0]


def test_wrong_answers_stay_known_in_what_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = cluster_sizes()
    sizes[1].wrong = "INVALID: 3 own"
    cluster_cost.save(sizes, tmp_path / "points")
    kept = cluster_cost.read(str(tmp_path / "points"))
    assert cluster_cost.report(kept, find_laws(kept), None) == 1
    assert "1 x 4: INVALID: 3 own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[", "truncated"),
        (b"[]", "too few points"),
        (b'[{"gateways": 1}]', "missing required field `shards`"),
        (b'[{"gateways":1,"shards":1,"idle":{},"samples":{"16":[]}}]', "length >= 1"),
        (
            b'[{"gateways":1,"shards":1,"idle":{},"samples":'
            b'{"16":[{"cost":0,"gateways":1,"shards":1,"frames":1,"turns":1}]}}]',
            "> 0.0",
        ),
    ],
)
def test_a_file_without_points_is_refused_by_a_line_that_says_why(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "points"
    file.write_bytes(content)
    with pytest.raises(ArgumentTypeError, match=why) as raised:
        cluster_cost.read(str(file))
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


def run_bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "loadtests.bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_fits_again_without_measuring(tmp_path: Path) -> None:
    cluster_cost.save(cluster_sizes(), tmp_path / "points")
    done = run_bench("growth", "--refit", str(tmp_path / "points"))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"three terms: {LAW}" in done.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--refit", "/nowhere"], "/nowhere: No such file"),
        (["hot", "--points", "points"], "which is not among the parts"),
        (["growth", "--points", "/nowhere/points"], "/nowhere/points: cannot be written"),
        (["growth", "--picture", "law.txt"], "law.txt: not a name that ends with .png"),
        (["growth", "--rounds", "0"], "0: not a number of rounds"),
        (["ladder", "--seconds", "nan"], "nan: not a number of seconds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(words: list[str], why: str) -> None:
    done = run_bench(*words)
    assert done.returncode == 2
    assert why in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
