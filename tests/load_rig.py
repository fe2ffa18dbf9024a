"""Drivers of loads, run with locust in a process of their own, as importing it replaces much of the standard library.

    with LoadRig() as rig:
        found = rig.drive(address, [part], answers=500)

A rig serves many runs. Each ends when a total reaches what is asked for, and answers with what was found.
"""

import json
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PATIENCE = 30.0  # seconds that a run may take, on a busy machine


class LoadRig:
    """The process, from outside."""

    def __init__(self):
        command = [sys.executable, "-P", __file__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()

    def drive(self, address, parts, patience=3.0, again=1.0, seed=1, files=4096, **until):
        """Run the parts at once, part n as user n, until a total is reached. Patience and `again` are the driver's.

        files: descriptors that the process may have at first.
        """
        order = {"address": address, "parts": parts, "patience": patience, "again": again, "seed": seed, "files": files}
        return self.ask({**order, "until": until})

    def batch(self, latencies):
        """What Latencies makes of those, in ns."""
        return self.ask({"latencies": latencies})

    def ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        assert "failed" not in found, found["failed"]
        return found


def main():
    for line in sys.stdin:
        order = json.loads(line)
        try:
            found = batch(order) if "latencies" in order else drive(order)
        except Exception as error:  # it is the test that fails
            found = {"failed": repr(error)}
        print(json.dumps(found), flush=True)


def batch(order):
    from loadtests.load.http_driver import Latencies

    latencies = Latencies()
    for ns in order["latencies"]:
        latencies.add(ns, 100)
    made = latencies.batch()
    return {**made._asdict(), "latencies": sorted(made.latencies.items())}


def drive(order):
    import gevent
    from locust.env import Environment

    from loadtests.load import http_driver
    from loadtests.load.plan import Part, Target
    from loadtests.load.statistics import totals_of

    http_driver.PATIENCE, http_driver.AGAIN = int(order["patience"] * 1e9), int(order["again"] * 1e9)
    http_driver.FLUSH = 10_000_000  # so that a run ends soon
    resource.setrlimit(resource.RLIMIT_NOFILE, (order["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    environment = Environment()
    environment.measuring = True
    totals = totals_of(environment)
    host, port = order["address"]
    target = Target(host=host, port=port, seed=order["seed"])
    before = open_files()
    parts = [Part(**part) for part in order["parts"]]
    drivers = [http_driver.HttpDriver(environment, target, part, number) for number, part in enumerate(parts)]
    greenlets = [gevent.spawn(driver.run) for driver in drivers]
    deadline = time.monotonic() + PATIENCE
    turns = 0
    try:
        while not any(totals[name] >= many for name, many in order["until"].items()):
            if time.monotonic() > deadline or any(greenlet.dead for greenlet in greenlets):
                raise RuntimeError(f"it does not come to that: {dict(totals)}")
            gevent.sleep(0.005)
            turns += 1
    finally:
        gevent.killall(greenlets)
        for greenlet in greenlets:
            greenlet.get()
    errors = environment.stats.errors.values()
    return {
        "totals": dict(totals),
        "turns": turns,
        "filled": [driver.filled for driver in drivers],
        "peers": sum(driver.population.peers for driver in drivers),
        "unsure": sum(driver.population.unsure() for driver in drivers),
        "faults": {f"{error.method} {error.name}: {error.error}": error.occurrences for error in errors},
        "examples": {
            name: driver.population.example(name) for driver in drivers for name in driver.population.faults()
        },
        "entries": {f"{entry.method} {entry.name}": figures(entry) for entry in environment.stats.entries.values()},
        "all": figures(environment.stats.total),
        "left open": sorted(open_files() - before),
    }


def figures(entry):
    return {
        "many": entry.num_requests,
        "failures": entry.num_failures,
        "least": entry.min_response_time,
        "most": entry.max_response_time,
        "p50": entry.get_response_time_percentile(0.5),
        "bytes": entry.total_content_length,
    }


def open_files():
    """Descriptors of sockets, and of what else a driver opens."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            name = os.readlink(path)
            if name.startswith(("socket:", "anon_inode:")):
                found.add(f"{path.name}: {name}")
    return found


if __name__ == "__main__":
    main()
