"""How fast a count rises."""

from time import monotonic


class Rate:
    """`per_second` is what the count rose by, a second, between the last two calls of `note`."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.when = monotonic()
        self.per_second = 0.0

    def note(self, count: int) -> None:
        """Take the count as it is now."""
        now = monotonic()
        self.per_second = (count - self.count) / max(now - self.when, 1e-3)
        self.count, self.when = count, now
