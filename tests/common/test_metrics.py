import os
import socket

from trackers import parse_metrics

from common import counters, metrics
from common.histogram import Histogram


class Fixed:
    """A source whose numbers do not change."""

    def __init__(self, *families):
        self.families = families

    def metrics(self):
        return self.families


def shown(*families):
    """The lines of /metrics for these families."""
    registry = metrics.Metrics()
    registry.sources.append(Fixed(*families))
    return parse_metrics(registry.text().decode())


def test_the_process_shows_itself():
    assert shown()["process_resident_memory_bytes"] > 1 << 20


def test_counters_and_gauges():
    lines = shown(metrics.counter("done", "Done", 3), metrics.gauge("here", "Here", 1.5))
    assert lines["done_total"] == 3
    assert lines["here"] == 1.5


def test_a_histogram():
    values = Histogram()
    for value in (1, 3):
        values.add(value)
    lines = shown(metrics.histogram("sizes", "Sizes", values))
    assert [lines[f'sizes_bucket{{le="{bound}"}}'] for bound in ("1", "2", "4", "+Inf")] == [1, 1, 2, 2]
    assert lines["sizes_count"] == 2
    assert lines["sizes_sum"] == 4


def test_a_gateway_shows_all_that_its_codec_counts():
    lines = shown(*metrics.gateway(list(range(100, 100 + counters.GATEWAY))))
    del lines["shoal_kernel_faults_total"]  # the process's
    own = [value for name, value in lines.items() if name.startswith("shoal_")]
    assert sorted(own) == list(range(100, 100 + counters.GATEWAY))
    assert lines['shoal_requests_total{kind="announce"}'] == 100 + counters.ANNOUNCES
    assert lines['shoal_answers_total{kind="error"}'] == 100 + counters.ERROR_ANSWERS
    assert lines['shoal_refusals_total{reason="bad_connection_id"}'] == 100 + counters.BAD_ID


def test_a_shard_shows_its_peers_by_family_listing_and_role():
    lines = shown(*metrics.shard(list(range(50, 50 + counters.SHARD)), list(range(12)), 7, 8, 9))
    assert lines['shoal_peers{family="ipv4",listing="public",role="leecher"}'] == 0
    assert lines['shoal_peers{family="ipv4",listing="public",role="seeder"}'] == 1
    assert lines['shoal_peers{family="ipv4",listing="local",role="leecher"}'] == 2
    assert lines['shoal_peers{family="ipv6",listing="unlisted",role="seeder"}'] == 11
    assert lines["shoal_torrents"] == 7
    assert lines["shoal_store_bytes"] == 8
    assert lines["shoal_store_ceiling_bytes"] == 9
    assert lines['shoal_not_stored_total{reason="memory"}'] == 50 + counters.MEMORY
    assert lines['shoal_announces_total{fate="new"}'] == 50 + counters.STORED


def test_drops_of_our_sockets_are_counted():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        full.bind(("127.0.0.1", 0))
        inode = os.fstat(full.fileno()).st_ino
        assert metrics.socket_drops({inode}) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(100):
                client.sendto(bytes(1000), full.getsockname())
        assert 0 < metrics.socket_drops({inode}) < 100
        assert metrics.socket_drops(set()) == 0


def test_systems_without_proc_have_no_drops(monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, "Path", lambda *_: tmp_path / "nothing")
    assert metrics.socket_drops({1}) == 0
