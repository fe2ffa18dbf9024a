"""What happens in a scenario beside its load: each function here is the course of scenarios that name it."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace
from rich.progress import BarColumn, Progress, TextColumn

from loadtests import clusters
from loadtests.load import quota, trackers
from loadtests.load.plan import Part
from loadtests.load.scenarios import Result, Scenario, ms
from loadtests.load.swarm import LoadError, Swarm
from loadtests.load.trackers import Address, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

SETTLE = 0.3  # seconds after a load in which what is under way ends
STEP = 3.0  # seconds of a step towards capacity
STEPS, GROWTH, ENOUGH = 10, 1.7, 0.9  # a step that answers a smaller share than ENOUGH is the last
OVER = 3.0  # times capacity
ABOVE = 1.1  # times what was found of capacity, so that it is all used
LULL = 2.0  # seconds between the return of one process and the end of the next
ROUNDS = 30  # requests a peer, on average, after which each has announced but one in millions
FLOOR = 5.0  # seconds of the floor's load


class Stage(NamedTuple):
    """What a course works with. `scenario`: scaled, its parts dealt out to workers."""

    scenario: Scenario
    subject: Subject
    swarm: Swarm
    console: Console
    folder: Path
    share: float = 0.1  # of a core, for `overload`

    def load(self, title: str, parts: Sequence[Part], seconds: float) -> Result:
        """Start users, fill, and measure."""
        self.start(title, parts)
        before = self.subject.refused()
        self.swarm.pause(self.scenario.warmup)
        result = self.measure(title, seconds)
        result.refused = more(before, self.subject.refused())
        return result

    def start(self, title: str, parts: Sequence[Part]) -> None:
        """Start users, and fill."""
        peers = sum(part.sources * part.ports for part in parts if part.fill)
        self.console.print(f"{title}: {peers:,} peers are announced once" if peers else f"{title}:", highlight=False)
        self.swarm.start(parts)

    def measure(self, title: str, seconds: float, beside: Callable[[], object] = lambda: None) -> Result:
        """Measure, with a progress bar; `beside` is done meanwhile, and makes the time longer if it takes longer."""
        spent, own = self.subject.spent(), self.swarm.spent()
        with bar(self.console, title, seconds) as look:
            result = self.swarm.measure(seconds, look, beside)
        result.processor = {role: ns / 1e9 for role, ns in (self.subject.spent() - spent).items()}
        result.load_processor = (self.swarm.spent() - own) / 1e9
        if title == self.scenario.phase:
            self.swarm.write_page()
        result.resident = self.subject.resident()
        return result


def more(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """By how much numbers have grown, where they have."""
    return {name: many - before.get(name, 0) for name, many in after.items() if many > before.get(name, 0)}


@contextmanager
def bar(console: Console, title: str, seconds: float) -> Iterator[Callable[[float, Result], None]]:
    """A progress bar; yields what is given figures."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.elapsed:.0f} s"),  # never cut, as TimeElapsedColumn is in 80 columns
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task(title, total=seconds, figures="")

        def look(passed: float, result: Result) -> None:
            progress.update(task, completed=min(passed, seconds), figures=figures(result), refresh=True)

        yield look
        progress.update(task, completed=seconds, refresh=True)


def figures(result: Result) -> str:
    """A line of how it goes so far."""
    rate = result.answers / max(result.seconds, 0.1)
    wrong = ", ".join(f"{many:,} {name}" for name, many in result.wrong.items()) or "none"
    return (
        f"{rate:,.0f}/s, p50 {ms(result.announces.p50)} ms, p99 {ms(result.announces.p99)} ms, "
        f"{result.first_lost:,} lost at first, wrong: {wrong}"
    )


def plain(stage: Stage) -> dict[str, Result]:
    """Nothing beside it."""
    return {"load": stage.load("load", stage.scenario.parts, stage.scenario.seconds)}


def overload(stage: Stage) -> dict[str, Result]:
    """Under a quota: ever more until it is not answered, which is capacity; three times that; half of it."""
    parts = stage.scenario.parts
    peers, patience = sum(part.sources * part.ports for part in parts), max(part.patience for part in parts)
    stage.start("all", parts)
    # A gateway that does not hear its shards in time answers without peers; alone, a tracker always knows all.
    stage.swarm.set_strict(len(stage.subject.workers()) == 1)
    with quota.limited(stage.subject.pids, stage.share):
        guess = find_capacity(stage)
        calm(stage, guess)
        capacity = at_rate(stage, "capacity", ABOVE * guess, STEP)
        calm(stage, guess)
        # Beyond that there would be nobody left to announce, as each waits for its answer.
        most = peers / patience
        before = stage.subject.refused()
        whole = at_rate(stage, "overload", min(OVER * capacity.goodput, most), stage.scenario.seconds)
        calm(stage, guess)
        whole.refused = more(before, stage.subject.refused())  # not asked before: it would wait as all do
        stage.swarm.doubt()
        stage.swarm.set_strict(True)
        return {"capacity": capacity, "overload": whole, "afterwards": at_rate(stage, "afterwards", guess / 2, STEP)}


def find_capacity(stage: Stage) -> float:
    """The most answers a second under the quota, by loads that grow. Raises LoadError."""
    best = 0.0
    rate = stage.swarm.rate
    for _ in range(STEPS):
        step = at_rate(stage, f"{rate:,.0f} a second", rate, STEP)
        best = max(best, step.goodput)
        if step.goodput < ENOUGH * rate:
            break
        rate *= GROWTH
    if not best:
        raise LoadError("the tracker answers nothing under its quota")
    return best


def at_rate(stage: Stage, title: str, rate: float, seconds: float) -> Result:
    """Measure at a rate."""
    stage.swarm.set_rate(rate)
    stage.swarm.pause(stage.scenario.warmup)
    return stage.measure(title, seconds)


def calm(stage: Stage, guess: float) -> None:
    """Let the tracker answer, or the load give up, what is under way."""
    stage.swarm.set_rate(guess / 4)
    stage.swarm.pause(max(part.patience for part in stage.scenario.parts))


def beside_floor(stage: Stage) -> dict[str, Result]:
    """The same load for calls of the system that do nothing else, for the tracker, and for those calls again."""
    program = stage.folder / "httpfloor"
    source = clusters.YARDSTICK / "httpfloor.c"
    try:
        subprocess.run(["gcc", "-O2", "-o", program, source], check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        raise LoadError(f"the floor needs gcc and {source}; YARDSTICK names its folder") from None
    port = trackers.free_port()
    with clusters.started("floor", port, [str(program), "-p", str(port)], ready=clusters.speaks_http):
        before = load_floor(stage, "floor", port)
        found = plain(stage)
        return {"floor": before} | found | {"floor again": load_floor(stage, "floor again", port)}


def load_floor(stage: Stage, title: str, port: int) -> Result:
    """The scenario's load for the floor, whose answers are made up."""
    parts = [replace(part, fill=False, strict=False) for part in stage.scenario.parts]
    stage.swarm.address = Address("127.0.0.1", port)
    result = stage.load(title, parts, min(FLOOR, stage.scenario.seconds))
    stage.swarm.stop()
    stage.swarm.address = stage.subject.address
    result.faults, result.processor, result.resident = {}, {}, {}
    return result


def restarts(stage: Stage) -> dict[str, Result]:
    """Each process is killed, in turn, then each stopped; afterwards all must be known again."""
    parts = stage.scenario.parts
    stage.start("restarts", parts)
    stage.swarm.pause(stage.scenario.warmup)

    def beside() -> None:
        for sign in (signal.SIGKILL, signal.SIGTERM):
            for pid in stage.subject.workers():
                end_one(stage, pid, sign)

    before = stage.subject.refused()
    found = stage.measure("load", stage.scenario.seconds, beside)
    found.refused = more(before, stage.subject.refused())
    found.processor = {}  # that of processes that are gone is not known
    stage.swarm.doubt()
    peers = sum(part.sources * part.ports for part in parts)
    stage.console.print("afterwards: every peer announces again", highlight=False)
    end = time.monotonic() + ROUNDS * peers / sum(part.rate for part in parts)
    while stage.swarm.unsure() and time.monotonic() < end:
        stage.swarm.pause(LULL / 4)
    stage.swarm.set_strict(True)
    after = stage.measure("afterwards", STEP)
    after.totals["unsure"] = stage.swarm.unsure()
    return {"load": found, "afterwards": after}


def end_one(stage: Stage, pid: int, sign: signal.Signals) -> None:
    """End a worker of the tracker, and wait until the next one serves, and a while."""
    role = clusters.role_of(pid)
    trackers.replaced(stage.subject, pid, sign)
    stage.swarm.doubt()
    stage.console.print(f"{role} {pid}: {sign.name}, back again", highlight=False)
    stage.swarm.pause(LULL)


COURSES: dict[str, Callable[[Stage], dict[str, Result]]] = {
    "plain": plain,
    "overload": overload,
    "beside_floor": beside_floor,
    "restarts": restarts,
}
