"""Run drivers in a process of their own, as locust replaces much of the standard library: drive.py SECONDS PARTS.

PARTS is JSON, {port: part}. Prints JSON, for each port: what was counted, the faults, the latencies of each kind.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gevent
import locust  # first, as it replaces parts of the standard library
import msgspec
from locust.env import Environment

from loadtests.load.plan import Part, Target
from loadtests.load.statistics import totals_of
from loadtests.load.users import make_driver, prepare


def drive(port: int, part: Part, seconds: float) -> dict[str, Any]:
    """What a driver found."""
    environment = Environment()
    prepare(environment)
    driver = make_driver(environment, Target(host="127.0.0.1", port=port, seed=5), part, 3)
    running = gevent.spawn(driver.run)
    with gevent.Timeout(60):
        while not driver.filled:
            running.get(block=False) if running.dead else gevent.sleep(0.01)
    environment.measuring = True  # type: ignore[attr-defined]
    running.join(seconds)
    running.kill()
    running.get()
    stats = environment.stats
    return {
        "totals": dict(totals_of(environment)),
        "faults": {error.error: error.occurrences for error in stats.errors.values()},
        "answers": {f"{entry.method} {entry.name}": entry.num_requests for entry in stats.entries.values()},
        "total": stats.total.num_requests,
        "present": driver.population.present,
    }


def main() -> None:
    """Drive all at once."""
    parts = msgspec.json.decode(sys.argv[2], type=dict[int, Part])
    running = {port: gevent.spawn(drive, port, part, float(sys.argv[1])) for port, part in parts.items()}
    print(json.dumps({port: each.get() for port, each in running.items()}))


if __name__ == "__main__":
    assert locust
    main()
