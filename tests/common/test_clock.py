from common.clock import LONGEST_STEP, SteadyClock


class Watch:
    """A time source that is told the time."""

    now = 1000.0

    def __call__(self):
        return self.now


def test_counts_whole_seconds_from_0():
    watch = Watch()
    clock = SteadyClock(watch)
    seen = []
    for _ in range(8):
        seen.append(clock.seconds())
        watch.now += 0.5
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_suspended_machine_loses_ten_seconds():
    watch = Watch()
    clock = SteadyClock(watch)
    watch.now += 3600
    assert clock.seconds() == LONGEST_STEP
    watch.now += 1
    assert clock.seconds() == LONGEST_STEP + 1


def test_a_source_that_goes_back_means_nothing():
    watch = Watch()
    clock = SteadyClock(watch)
    watch.now -= 100
    assert clock.seconds() == 0
    watch.now += 1
    assert clock.seconds() == 1


def test_the_default_source_is_there():
    assert SteadyClock().seconds() == 0
