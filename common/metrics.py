"""What `/metrics` shows: numbers that are read from kernels and loops only when somebody asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

from common import counters, frames, logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from common.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KINDS = {
    frames.PUBLIC4: ("ipv4", "public"),
    frames.LOCAL4: ("ipv4", "local"),
    frames.HIDDEN4: ("ipv4", "unlisted"),
    frames.PUBLIC6: ("ipv6", "public"),
    frames.LOCAL6: ("ipv6", "local"),
    frames.HIDDEN6: ("ipv6", "unlisted"),
}


class Source(Protocol):
    """Something that has numbers to show."""

    def metrics(self) -> Iterable[Metric]:
        """The numbers as they are now."""


class Metrics:
    """The registry of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sources: list[Source] = []
        ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        yield counter("shoal_kernel_faults", "Exceptions that a kernel could not raise", logs.kernel_faults())
        for source in self.sources:
            yield from source.metrics()

    def text(self) -> bytes:
        """All numbers, in the text format of Prometheus."""
        return generate_latest(self.registry)


def labelled(name: str, text: str, label: str, values: list[int], places: Mapping[str, int]) -> CounterMetricFamily:
    """A counter with one label from a kernel's array."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, place in places.items():
        family.add_metric([value], values[place])
    return family


def counter(name: str, text: str, value: float) -> CounterMetricFamily:
    """A counter without labels."""
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def histogram(name: str, text: str, values: Histogram, unit: float = 1) -> HistogramMetricFamily:
    """A histogram in powers of two; `unit` is what its values are counted in."""
    return HistogramMetricFamily(name, text, buckets=values.cumulative(unit), sum_value=values.total * unit)


def gateway(values: list[int]) -> Iterator[Metric]:
    """What a gateway's codec counted."""
    yield labelled("shoal_requests", "Requests understood, by kind", "kind", values, counters.REQUEST_KINDS)
    yield labelled("shoal_answers", "Answers sent, by kind", "kind", values, counters.ANSWER_KINDS)
    yield labelled("shoal_refusals", "Datagrams refused, by reason", "reason", values, counters.REFUSALS)
    yield counter("shoal_url_data", "Announces that carry their URL (BEP 41)", values[counters.URL_DATA])
    yield counter("shoal_bad_options", "Announces with options cut off (BEP 41)", values[counters.BAD_OPTIONS])
    yield counter("shoal_errors_held_back", "Errors not sent, for their limit", values[counters.ERRORS_HELD_BACK])


def shard(values: list[int], peers: list[int], swarms: int, taken: int, ceiling: int) -> Iterator[Metric]:
    """What a shard's store counted and holds; `peers` by kind, leechers before seeders."""
    yield labelled("shoal_announces", "Announces applied, by fate", "fate", values, counters.ANNOUNCE_FATES)
    yield labelled("shoal_not_stored", "Peers answered but not stored", "reason", values, counters.NOT_STORED)
    yield counter("shoal_completions", "Downloads completed", values[counters.COMPLETIONS])
    family = GaugeMetricFamily("shoal_peers", "Peers stored", labels=["family", "listing", "role"])
    for kind, labels in KINDS.items():
        family.add_metric([*labels, "leecher"], peers[2 * kind])
        family.add_metric([*labels, "seeder"], peers[2 * kind + 1])
    yield family
    yield gauge("shoal_torrents", "Swarms stored", swarms)
    yield gauge("shoal_store_bytes", "Memory that the store has taken", taken)
    yield gauge("shoal_store_ceiling_bytes", "Memory that the store may take", ceiling)


def socket_drops(inodes: set[int]) -> int:
    """Datagrams that the system dropped because our sockets' buffers were full, from /proc/net."""
    dropped = 0
    for name in ("udp", "udp6"):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[9]) in inodes:
                dropped += int(fields[-1])
    return dropped
