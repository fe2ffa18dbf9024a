"""Batches in locust's statistics are what single requests would be; in a process of its own, as locust changes much."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import json, random
import locust.stats
from locust.env import Environment
from loadtests.load.statistics import LATE, Batch, Statistics, share_totals, totals_of

# Latencies as they are, so that both ways are compared and not locust's rounding.
locust.stats.bucket_response_time = lambda latency: latency
chance = random.Random(3)
latencies = [round(chance.expovariate(0.5), 2) for _ in range(5000)]
alone, batched, master = (Environment(host="x") for _ in range(3))
for environment in (alone, batched, master):
    environment.measuring = True
for latency in latencies:
    alone.stats.log_request("UDP", "announce", latency, 100)
statistics = Statistics(batched)
for at in range(0, len(latencies), 64):
    some = latencies[at : at + 64]
    counted = {latency: some.count(latency) for latency in some}
    statistics.add("UDP", "announce", Batch(counted, sum(some), min(some), max(some), 100 * len(some)))
for _ in range(7):
    alone.stats.log_error("UDP", "announce", "few")
batched.measuring = False
statistics.fail("UDP", "announce", "few", 3)  # while the tracker is filled, say: told later
statistics.count({"sent": 1})
batched.measuring = True
statistics.fail("UDP", "announce", "few", 4)
statistics.fail("UDP", "announce", "own", 0)
statistics.add("load", LATE, Batch({0.5: 9}, 4.5, 0.5, 0.5))
statistics.count({"lost": 2, "sent": 10})
batched.measuring = False
statistics.add("UDP", "announce", Batch({1.0: 1}, 1.0, 1.0, 1.0))
statistics.count({"lost": 2})

# What a worker sends its master, twice, as locust does it.
for environment in (batched, master):
    share_totals(environment)
for environment in (batched, master):
    locust.stats.setup_distributed_stats_event_listeners(environment.events, environment.stats)
for _ in range(2):
    report = {}
    batched.events.report_to_master.fire(client_id="w", data=report)
    master.events.worker_report.fire(client_id="w", data=report)

def told(stats):
    found = {}
    for name, entry in (("total", stats.total), ("announce", stats.entries[("announce", "UDP")])):
        found[name] = [
            entry.num_requests, round(entry.total_response_time, 3), entry.min_response_time, entry.max_response_time,
            entry.total_content_length, entry.num_failures, sum(entry.num_reqs_per_sec.values()),
            sum(entry.num_fail_per_sec.values()),
            [entry.get_response_time_percentile(p) for p in (0.5, 0.9, 0.99, 1.0)],
        ]
    found["errors"] = {error.error: error.occurrences for error in stats.errors.values()}
    return found

print(json.dumps({
    "alone": told(alone.stats), "master": told(master.stats), "totals": dict(totals_of(master)),
    "late": master.stats.entries[(LATE, "load")].num_requests,
}))
"""


@pytest.fixture(scope="module")
def told():
    command = [sys.executable, "-P", "-c", CHECK]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path("/"), check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_batches_on_a_worker_are_on_the_master_what_single_requests_are(told):
    assert told["master"] == told["alone"]
    assert told["master"]["announce"][0] == 5000
    assert told["master"]["errors"] == {"few": 7}


def test_totals_are_added_up_and_how_late_requests_left_is_no_request(told):
    assert told["totals"] == {"lost": 2, "sent": 10}
    assert told["late"] == 9
