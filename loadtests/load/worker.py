"""A process that makes a share of a load: `python -P -m loadtests.load.worker PORT` joins the runner at a port.

run.py starts as many as it is told to; they get the plan from it, and send it what they find.
"""

from __future__ import annotations

import logging
import signal
import sys

import locust  # first, as it replaces parts of the standard library
from locust import runners
from locust.env import Environment

from loadtests import clusters
from loadtests.load.swarm import Hand
from loadtests.load.users import LoadUser, prepare

REPORTS = 0.5  # seconds between reports; locust's own 3 would let the progress bar lag


def main() -> int:
    """0 once the runner says that it is over."""
    clusters.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who started this ends it
    logging.getLogger("locust").setLevel(logging.CRITICAL)
    runners.WORKER_REPORT_INTERVAL = REPORTS
    runners.WORKER_LOG_REPORT_INTERVAL = -1
    environment = Environment(user_classes=[LoadUser])
    prepare(environment)
    runner = environment.create_worker_runner("127.0.0.1", int(sys.argv[1]))
    Hand(environment)
    runner.greenlet.join()
    return 0


if __name__ == "__main__":
    assert locust
    sys.exit(main())
