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


def named(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    """A counter with one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def named_gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with one label."""
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def http(values: list[int], connections: tuple[int, int, int, int], at_present: int) -> Iterator[Metric]:
    """What HTTP's codec counted, and its connections: accepted, turned away in all and by source, lost."""
    accepted, over_all, over_source, lost = connections
    kinds = {"announce": counters.HTTP_ANNOUNCES, "scrape": counters.HTTP_SCRAPES}
    yield labelled("shoal_http_requests", "HTTP requests understood, by kind", "kind", values, kinds)
    answers = {
        "announce": counters.HTTP_ANNOUNCE_ANSWERS,
        "scrape": counters.HTTP_SCRAPE_ANSWERS,
        "empty": counters.HTTP_EMPTY_ANSWERS,
    }
    yield labelled(
        "shoal_http_answers", "HTTP answers, by kind; empty: no shard answered in time", "kind", values, answers
    )
    refusals = dict(zip(counters.HTTP_FAULTS, values[counters.HTTP_FAILURES :], strict=True))
    refusals |= {"connections": over_all, "connections_of_source": over_source}
    yield named("shoal_http_refusals", "HTTP requests and connections refused, by reason", "reason", refusals)
    ignored = values[counters.HTTP_FORWARDED_IGNORED]
    yield counter("shoal_http_forwarded_ignored", "X-Forwarded-For of nobody trusted, or unreadable", ignored)
    yield counter("shoal_http_late_replies", "Replies for requests that are gone", values[counters.HTTP_LATE_REPLY])
    yield counter("shoal_http_bad_replies", "Replies that do not add up", values[counters.HTTP_BAD_REPLY])
    yield counter("shoal_http_connections", "Connections accepted", accepted)
    yield counter("shoal_http_lost", "Connections that broke while they were answered", lost)
    yield gauge("shoal_http_open", "Connections open at present", at_present)


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
