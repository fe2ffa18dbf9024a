"""A histogram in powers of two that costs a few list operations a batch."""


class Histogram:
    """Counts values by the power of two at or above them: buckets[i] has those up to 2^i, over 2^(i-1)."""

    def __init__(self) -> None:
        self.buckets = [0] * 24
        self.total = 0

    def add(self, value: int) -> None:
        """Count a value from 1 on."""
        self.buckets[min((value - 1).bit_length(), 23)] += 1
        self.total += value

    def cumulative(self, unit: float = 1) -> list[tuple[str, float]]:
        """Upper bounds in units and counts up to them, as Prometheus has them."""
        rows: list[tuple[str, float]] = []
        count = 0
        for power, here in enumerate(self.buckets[:-1]):
            count += here
            rows.append((f"{(1 << power) * unit:.10g}", count))
        return [*rows, ("+Inf", count + self.buckets[-1])]
