"""`make load SCENARIO=steady`: a load on a tracker by locust, every answer checked, and a verdict. See docs/load.md.

Exit status 0 if every criterion is met, 1 if one is not or the load could not be made, 2 for a usage mistake.
`make load-web` is locust's web page for the same.
"""

from __future__ import annotations

import logging
import random
import shlex
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import gevent
import locust  # first, as it replaces parts of the standard library
from rich.console import Console

from loadtests import clusters
from loadtests.load import options as command_line
from loadtests.load import report, trackers
from loadtests.load.courses import COURSES, Stage
from loadtests.load.quota import QuotaError
from loadtests.load.report import Report
from loadtests.load.scenarios import Result, Scenario, scaled
from loadtests.load.swarm import LoadError, Swarm

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from loadtests.load.trackers import Subject


def main() -> int:
    """The exit status."""
    options = command_line.read()
    logging.getLogger("locust").setLevel(logging.CRITICAL)  # what is wrong is told in one line
    console = Console(stderr=False, soft_wrap=True)
    # In a greenlet of its own: locust's pass over an interrupt that they meet. What was started ends with us.
    gevent.signal_handler(signal.SIGTERM, sys.exit, 143)
    gevent.signal_handler(signal.SIGINT, sys.exit, 0 if options.web else 1)
    try:
        with TemporaryDirectory() as folder:
            trackers.share_cores()
            with trackers.subject(options.tracker, Path(folder)) as subject:
                if options.web:
                    return serve(options, subject, console)
                return judge(options, subject, Path(folder), console)
    except QuotaError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except (LoadError, RuntimeError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1


def judge(options: Namespace, subject: Subject, folder: Path, console: Console) -> int:
    """Run a scenario and report; 0 if it passed."""
    scenario = scaled(command_line.chosen(options), options.scale, max(options.workers, 1))
    console.print(f"{scenario.name}, {subject.name}: {scenario.says}", highlight=False)
    if subject.tracker is None:
        console.print("not ours to look at: what the tracker's processes use", highlight=False)
    with Swarm(subject.address, options.sources, options.workers, random.getrandbits(32)) as swarm:
        found = COURSES[scenario.course](Stage(scenario, subject, swarm, console, folder, options.quota))
        of_locust = swarm.page
    outcome = outcome_of(options, scenario, found)
    print(report.as_text(outcome))
    if options.report:
        options.report.write_text(report.as_html(outcome, of_locust))
    if options.summary:
        options.summary.write_text(report.as_markdown(outcome))
    if options.results:
        report.append(options.results, outcome)
    return 0 if outcome.passed else 1


def outcome_of(options: Namespace, scenario: Scenario, found: Mapping[str, Result]) -> Report:
    """What is reported of a run."""
    return Report(
        scenario=scenario,
        found=found,
        verdicts=[criterion(found) for criterion in scenario.criteria],
        tracker=options.tracker,
        scale=options.scale,
        workers=options.workers,
        date=time.strftime("%Y-%m-%d %H:%M"),
        commit=clusters.commit(),
        machine=trackers.machine(),
        command="python -P -m loadtests.load.run " + shlex.join(sys.argv[1:]),
    )


def serve(options: Namespace, subject: Subject, console: Console) -> int:
    """locust's web page, until it is interrupted; 0."""
    scenario = scaled(command_line.chosen(options), options.scale)
    with Swarm(subject.address, options.sources, 0, random.getrandbits(32)) as swarm:
        page = swarm.serve(scenario.parts, options.port)
        console.print(
            f"{scenario.name}, {subject.name}; start it in a browser, end it here by Ctrl-C: {page}", highlight=False
        )
        swarm.wait()
    return 0


if __name__ == "__main__":
    assert locust
    sys.exit(main())
