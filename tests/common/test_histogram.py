from common.histogram import Histogram


def test_values_are_counted_at_the_power_of_two_above():
    histogram = Histogram()
    for value in (1, 2, 3, 4, 5, 1024):
        histogram.add(value)
    rows = dict(histogram.cumulative())
    assert [rows[bound] for bound in ("1", "2", "4", "8", "512", "1024", "+Inf")] == [1, 2, 4, 5, 5, 6, 6]
    assert histogram.total == 1039


def test_what_is_too_large_is_in_the_last_bucket():
    histogram = Histogram()
    for value in (1 << 22, (1 << 22) + 1, 1 << 60):
        histogram.add(value)
    assert histogram.cumulative()[-2:] == [(str(1 << 22), 1), ("+Inf", 3)]


def test_bounds_rise():
    bounds = [float(bound) for bound, _ in Histogram().cumulative()]
    assert bounds == sorted(set(bounds))


def test_bounds_may_be_in_another_unit():
    bounds = [bound for bound, _ in Histogram().cumulative(1e-6)]
    assert bounds[:4] == ["1e-06", "2e-06", "4e-06", "8e-06"]
    assert bounds[-2:] == ["4.194304", "+Inf"]
