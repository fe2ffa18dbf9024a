"""Many latencies at once into locust's statistics, as if each had been logged alone.

locust counts a request a call, which costs more than the request. Here one call adds a batch: every answer has its own
latency, in the entry and in the total, so that percentiles, charts and the report are what they would be. A worker of a
distributed run sends its entries to the master as always.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from locust.stats import StatsError

if TYPE_CHECKING:
    from locust.env import Environment
    from locust.stats import RequestStats, StatsEntry


class Batch(NamedTuple):
    """Latencies in milliseconds: how many of each, their sum, least and most; bytes of the answers."""

    latencies: dict[float, int]
    total: float
    least: float
    most: float
    size: int = 0


class Statistics:
    """Where a driver puts what it found. While `environment.measuring` is False only failures are kept, for later."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.untold: Counter[tuple[str, str, str]] = Counter()

    @property
    def counts(self) -> bool:
        """Whether what happens now is measured."""
        return bool(getattr(self.environment, "measuring", True))

    def add(self, method: str, name: str, batch: Batch) -> None:
        """Add latencies to an entry and to the total; how late requests left is no request, so to its entry alone."""
        if not self.counts or not batch.latencies:
            return
        stats = self.environment.stats
        _add(stats.entries[(name, method)], batch)
        if name != LATE:
            _add(stats.total, batch)

    def fail(self, method: str, name: str, fault: str, many: int) -> None:
        """Count failures of one kind."""
        self.untold[method, name, fault] += many

    def count(self, found: dict[str, int]) -> None:
        """Add to the run's totals; to be called when all else was told."""
        if not self.counts:
            return
        totals_of(self.environment).update(found)
        for (method, name, fault), many in self.untold.items():
            if many > 0:
                _fail(self.environment.stats, method, name, fault, many)
        self.untold.clear()


LATE = "sent late"  # by the load itself


def totals_of(environment: Environment) -> Counter[str]:
    """What is counted beside latencies and failures."""
    if not hasattr(environment, "totals"):
        environment.totals = Counter()  # type: ignore[attr-defined]  # ours
    totals: Counter[str] = environment.totals  # type: ignore[attr-defined]
    return totals


def share_totals(environment: Environment) -> None:
    """Let workers send their totals to the master, which adds them up."""

    def send(client_id: str, data: dict[str, Any]) -> None:
        totals = totals_of(environment)
        data["totals"] = dict(totals)
        totals.clear()

    def take(client_id: str, data: dict[str, Any]) -> None:
        totals_of(environment).update(data.get("totals", {}))

    environment.events.report_to_master.add_listener(send)  # type: ignore[no-untyped-call]
    environment.events.worker_report.add_listener(take)  # type: ignore[no-untyped-call]


def _fail(stats: RequestStats, method: str, name: str, fault: str, many: int) -> None:
    """Do for many failures what locust's RequestStats.log_error does for one."""
    second = int(time.time())
    for entry in (stats.entries[(name, method)], stats.total):
        entry.num_failures += many
        entry.num_fail_per_sec[second] += many
    error = stats.errors.setdefault(StatsError.create_key(method, name, fault), StatsError(method, name, fault))
    error.occurred()
    error.occurrences += many - 1


def _add(entry: StatsEntry, batch: Batch) -> None:
    """Do for a batch what locust's StatsEntry.log does for one."""
    now = time.time()
    second = int(now)
    many = sum(batch.latencies.values())
    if entry.use_response_times_cache and entry.last_request_timestamp and second > int(entry.last_request_timestamp):
        entry._cache_response_times(second - 1)
    entry.num_requests += many
    entry.num_reqs_per_sec[second] += many
    entry.last_request_timestamp = now
    entry.total_response_time += batch.total  # type: ignore[assignment]  # locust has whole numbers
    known = entry.min_response_time
    entry.min_response_time = batch.least if known is None else min(known, batch.least)  # type: ignore[assignment]
    entry.max_response_time = max(entry.max_response_time, batch.most)  # type: ignore[assignment]
    for latency, count in batch.latencies.items():
        entry.response_times[latency] += count  # type: ignore[index]
    entry.total_content_length += batch.size
