import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("90 s", 90),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("2d", 172_800),
        (" 0s ", 0),
        ("1d1h1m1s", 90_061),
    ],
)
def test_a_duration_is_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "30", "m", "1.5h", "-1s", "30m1h", "1h1h", "5 min", "1 s s", "٣s", "1e3s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 MiB", 64 << 20), ("1GiB", 1 << 30), ("500 kB", 500_000), ("1.5 GiB", 3 << 29), ("7 B", 7), ("0 B", 0)],
)
def test_a_size_is_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "64", "MiB", "-1 MiB", "1 mib", "1 M", "1.0000001 kB", "1,5 GiB", "1 MiB 2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a"):
        parse_size(text)


@given(st.integers(0, 10**9))
def test_a_duration_is_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 1 << 45))
def test_a_size_is_read_back(size):
    assert parse_size(format_size(size)) == size
