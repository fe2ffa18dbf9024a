"""locust as a library: users are started, fill their swarms, are measured, and stopped, here or in worker processes.

`Swarm` is in the process that judges, a `Hand` wherever users are. They talk by locust's own messages: an order goes to
all hands, and each tells when it is done, after what it has counted until then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import gevent
import locust.stats
import msgspec
from locust import html
from locust.argument_parser import get_parser
from locust.env import Environment
from locust.runners import STATE_STOPPED, MasterRunner, WorkerRunner
from locust.stats import StatsEntry, calculate_response_time_percentile
from msgspec.structs import replace

from loadtests import clusters
from loadtests.load.plan import Part, Target
from loadtests.load.scenarios import Latency, Result
from loadtests.load.users import LoadUser, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ORDER, TOLD = "load-order", "load-told"
JOINED = 0  # what a worker tells of itself: that it can be given orders
PATIENCE = 180.0  # seconds for a fill, or for workers to do what they are told
LOOK = 0.25  # seconds between two looks at figures
HISTORY = 1.0  # seconds between points of locust's charts


class LoadError(Exception):
    """The load could not be made; says why in one line."""


class Plan(msgspec.Struct, frozen=True):
    """What users are to do, as it travels to workers."""

    target: Target
    parts: tuple[Part, ...]
    workers: int


class Hand:
    """Does what is ordered, in a process that has users."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.runner = environment.runner
        self.orders: dict[str, Callable[[Any], object]] = {
            "plan": self._plan,
            "fill": self._await_fill,
            "measure": self._measure,
            "report": lambda _: None,
            "strict": self._set_strict,
            "doubt": self._doubt,
            "pace": self._pace,
            "tell": self._unsure,
        }
        self.runner.register_message(ORDER, self._obey)
        if isinstance(self.runner, WorkerRunner):  # an order that came before would have been lost
            self.runner.send_message(TOLD, {"number": JOINED, "answer": None})

    def _obey(self, msg: Any, **_: Any) -> None:
        """Do it in a greenlet of its own, as it may take long; then report, and tell."""
        gevent.spawn(self._do, **msg.data)

    def _do(self, number: int, order: str, detail: Any) -> None:
        answer = self.orders[order](detail)
        if isinstance(self.runner, WorkerRunner):  # what was counted goes now, rather than with the next report
            data: dict[str, Any] = {}
            self.environment.events.report_to_master.fire(client_id=self.runner.client_id, data=data)
            self.runner.send_message("stats", data)
        self.runner.send_message(TOLD, {"number": number, "answer": answer})

    def _plan(self, detail: Any) -> None:
        found = msgspec.convert(detail, Plan)
        self.environment.target, self.environment.parts = found.target, list(found.parts)
        self.environment.workers = found.workers

    def _measure(self, detail: Any) -> None:
        if detail:
            self.environment.stats.reset_all()
        self.environment.measuring = detail

    def _set_strict(self, detail: Any) -> None:
        for driver in self._drivers():
            driver.population.strict = detail

    def _pace(self, detail: Any) -> None:
        for driver in self._drivers():
            driver.part = replace(driver.part, rate=driver.part.rate * detail)
            driver.pacer.restart(driver.part.rate)

    def _doubt(self, _: Any) -> None:
        for driver in self._drivers():
            driver.population.doubt()

    def _unsure(self, _: Any) -> int:
        return sum(driver.population.unsure() for driver in self._drivers())

    def _await_fill(self, _: Any) -> None:
        while not self._drivers() or not all(driver is not None and driver.filled for driver in self._drivers()):
            gevent.sleep(0.02)

    def _drivers(self) -> list[Any]:
        """Those of all users here."""
        return [user.args[0].driver for user in self.runner.user_greenlets if user.args]


class Swarm:
    """The users of a scenario, and what they find. Use it as a context: workers end with it.

    sources: local addresses; none for the system's choice. seed: of info-hashes; each phase has torrents of its own.
    """

    def __init__(self, address: tuple[str, int], sources: tuple[str, ...], workers: int, seed: int) -> None:
        locust.stats.HISTORY_STATS_INTERVAL_SEC = HISTORY  # type: ignore[assignment]
        self.address = address
        self.sources = sources
        self.seed = seed
        self.environment: Any = Environment(user_classes=[LoadUser], host="udp://{}:{}".format(*address))
        prepare(self.environment)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.runner: Any
        self.told: dict[int, list[Any]] = {JOINED: []}
        self.number = 0
        self.rate = 0.0
        self.page = ""  # locust's report, once it is written
        if workers:
            self.runner = self.environment.create_master_runner("127.0.0.1", 0)
            command = [sys.executable, "-P", "-m", "loadtests.load.worker", str(self.runner.server.port)]
            self.workers = [subprocess.Popen(command) for _ in range(workers)]
        else:
            self.runner = self.environment.create_local_runner()
            Hand(self.environment)
        self.runner.register_message(TOLD, self._hear)
        self.history = gevent.spawn(locust.stats.stats_history, self.runner)

    def __enter__(self) -> Swarm:
        try:
            self._await("workers have not joined", lambda: self._ready() == self._joined() == len(self.workers))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.history.kill()
        try:
            self.runner.quit()
        finally:
            for worker in self.workers:
                worker.terminate()
                worker.wait()

    def start(self, parts: Sequence[Part]) -> None:
        """Let users do these parts, and wait until the tracker knows all their peers. Raises LoadError."""
        self.stop()
        self._plan(parts)
        self.runner.start(len(parts), len(parts))
        self._await("users have not started", lambda: self.runner.user_count == len(parts))
        self._order("fill")

    def _plan(self, parts: Sequence[Part]) -> None:
        """Tell everybody what users are to do, with torrents of their own."""
        self.seed += 1
        host, port = self.address
        self.rate = sum(part.rate for part in parts)
        target = Target(host=host, port=port, seed=self.seed, sources=self.sources)
        self._order("plan", msgspec.to_builtins(Plan(target, tuple(parts), max(len(self.workers), 1))))

    def stop(self) -> None:
        """Stop all users."""
        if self.runner.user_count:
            self.runner.stop()
            self._await("users have not stopped", lambda: self.runner.state == STATE_STOPPED)
            self._await("workers are not ready", lambda: self._ready() == len(self.workers))

    def doubt(self) -> None:
        """What the tracker was told, it may have lost."""
        self._order("doubt")

    def set_strict(self, strict: bool) -> None:
        """Whether answers must have all that was announced."""
        self._order("strict", strict)

    def set_rate(self, rate: float) -> None:
        """Let all users together make so many requests a second."""
        self._order("pace", rate / self.rate)
        self.rate = rate

    def unsure(self) -> int:
        """Peers of which it is not known what the tracker believes."""
        return sum(self._order("tell"))

    def spent(self) -> int:
        """Nanoseconds of processor time of all processes that make the load."""
        return sum(map(clusters.nanoseconds, [os.getpid(), *(worker.pid for worker in self.workers)]))

    def measure(
        self,
        seconds: float,
        look: Callable[[float, Result], object] = lambda _, __: None,
        beside: Callable[[], object] = lambda: None,
    ) -> Result:
        """Count for so many seconds, and until what is done beside it has ended.

        `look` is given the seconds so far and the figures, again and again. Raises LoadError, and what `beside` raises.
        """
        self._order("report")
        before: Counter[str] = Counter(self.environment.totals)
        self.environment.stats.reset_all()
        began = time.monotonic()
        self._order("measure", True)
        other = gevent.spawn(attempt, beside)
        try:
            while (passed := time.monotonic() - began) < seconds or not other.dead:
                look(passed, self._result(passed, before))
                gevent.sleep(min(LOOK, max(seconds - passed, 0.01)) if passed < seconds else LOOK)
            if (failed := other.get()) is not None:
                raise failed
        finally:
            other.kill()
        took = time.monotonic() - began
        self._order("measure", False)
        self._check()
        return self._result(took, before)

    def write_page(self) -> None:
        """Keep locust's report of what was measured last."""
        locust.stats.update_stats_history(self.runner)
        self.page = html.get_html_report(self.environment, show_download_link=False)  # type: ignore[no-untyped-call]

    def serve(self, parts: Sequence[Part], port: int) -> str:
        """Have a web page, on loopback, where users are started and stopped; where it is. Raises LoadError."""
        words = ["--users", str(len(parts)), "--spawn-rate", str(len(parts))]
        sys.argv[1:] = []  # the page would read it as locust's
        self.environment.parsed_options = get_parser(default_config_files=[]).parse_args(words)
        self.environment.events.test_start.add_listener(lambda **_: self._begin(parts))
        page = self.environment.create_web_ui("127.0.0.1", port)
        while page.server is None or not page.server.started:
            if page.greenlet.dead:
                raise LoadError(f"nothing can listen on port {port}")
            gevent.sleep(0.01)
        return f"http://127.0.0.1:{page.server.server_port}"

    def _begin(self, parts: Sequence[Part]) -> None:
        """The page starts users: they fill their swarms, then they are measured."""
        self._plan(parts)
        self._order("measure", False)

        def measure() -> None:
            self._order("fill")
            self._order("measure", True)

        gevent.spawn_later(LOOK, measure)

    def wait(self) -> None:
        """Until it is interrupted."""
        self.runner.greenlet.join()

    def pause(self, seconds: float) -> None:
        """Let users go on, uncounted."""
        gevent.sleep(seconds)

    def _order(self, order: str, detail: Any = None) -> list[Any]:
        """Have all hands do something, wait until they have, and return what they say. Raises LoadError."""
        self.number += 1
        told = self.told[self.number] = []
        self.runner.send_message(ORDER, {"number": self.number, "order": order, "detail": detail})
        everybody = max(len(self.workers), 1)
        self._await(f"the load does not {order}", lambda: len(told) >= everybody)
        return told

    def _hear(self, msg: Any, **_: Any) -> None:
        self.told[msg.data["number"]].append(msg.data["answer"])

    def _await(self, otherwise: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self._check()
            if time.monotonic() > deadline:
                raise LoadError(f"{otherwise} within {PATIENCE:.0f} s")
            gevent.sleep(0.01)

    def _check(self) -> None:
        """Raises LoadError if anybody has ended who should not."""
        if any(worker.poll() is not None for worker in self.workers):
            raise LoadError("a worker process has ended")
        for each in self.runner.exceptions.values():
            raise LoadError(f"a user has ended: {each['msg']}")

    def _joined(self) -> int:
        return len(self.told[JOINED])

    def _ready(self) -> int:
        return len(self.runner.clients.ready) if isinstance(self.runner, MasterRunner) else 0

    def _result(self, seconds: float, before: Counter[str]) -> Result:
        stats = self.environment.stats
        entries = {f"{entry.method} {entry.name}": entry for entry in stats.entries.values() if entry.num_requests}
        faults: Counter[str] = Counter()
        for error in stats.errors.values():
            faults[str(error.error)] += error.occurrences
        return Result(
            seconds=seconds,
            rate=self.rate,
            latencies={name: latency([entry]) for name, entry in sorted(entries.items())},
            announces=latency([entry for entry in entries.values() if entry.name == "announce"]),
            faults=dict(faults),
            totals=dict(Counter[str](self.environment.totals) - before),
        )


def attempt(what: Callable[[], object]) -> Exception | None:
    """Do something; what it raises is returned, as a greenlet that ends with it would print it."""
    try:
        what()
    except (RuntimeError, OSError, LoadError) as error:
        return error
    return None


def latency(entries: Iterable[StatsEntry]) -> Latency:
    """Of all answers of some kinds together."""
    times: Counter[float] = Counter()
    for entry in entries:
        times.update(entry.response_times)
    many = times.total()
    p50, p99 = (calculate_response_time_percentile(times, many, share) for share in (0.5, 0.99))  # type: ignore[arg-type]
    return Latency(count=many, p50=p50, p99=p99)
