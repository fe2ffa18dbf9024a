"""The user of locust: each drives the swarms of a part of the load, over the protocol that the part names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from locust import User, task

from loadtests.load.http_driver import HttpDriver, Made
from loadtests.load.statistics import share_totals, totals_of
from loadtests.load.udp_driver import UdpDriver

if TYPE_CHECKING:
    from locust.env import Environment

    from loadtests.load.plan import Part, Target

DRIVERS: dict[str, type[UdpDriver | HttpDriver]] = {
    "udp": UdpDriver,
    "http-kept": HttpDriver,
    "http-oneshot": HttpDriver,
}


def prepare(environment: Environment) -> None:
    """Let users be run there. To be set before they are: `target`, `parts`, and `workers`, the processes with users."""
    environment.target = None  # type: ignore[attr-defined]  # ours, as the others
    environment.parts = []  # type: ignore[attr-defined]
    environment.workers = 1  # type: ignore[attr-defined]
    environment.measuring = False  # type: ignore[attr-defined]
    environment.begun = 0  # type: ignore[attr-defined]  # users of this process
    totals_of(environment)
    share_totals(environment)
    environment.events.test_start.add_listener(_number_anew)  # type: ignore[no-untyped-call]


def _number_anew(environment: Any, **_: Any) -> None:
    environment.begun = 0


class LoadUser(User):
    """User n of all processes drives part n, from the first again when there are more users than parts."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        local = environment.begun
        environment.begun += 1
        self.number = getattr(environment.runner, "worker_index", 0) + local * environment.workers
        self.driver: UdpDriver | HttpDriver | None = None

    @task
    def drive(self) -> None:
        """Until stopped."""
        parts = self.environment.parts
        part = parts[self.number % len(parts)]
        self.driver = make_driver(self.environment, self.environment.target, part, self.number)
        self.driver.run()


def make_driver(environment: Environment, target: Target, part: Part, number: int) -> UdpDriver | HttpDriver:
    """What drives a part. Raises ValueError, OSError."""
    if part.fill and part.fill_by_udp and part.kind != "udp":
        return HttpDriver(environment, target, part, number, filled(environment, target, part, number))
    return DRIVERS[part.kind](environment, target, part, number)


def filled(environment: Environment, target: Target, part: Part, number: int) -> Made:
    """A population for HTTP whose peers have announced over UDP. Raises ValueError, OSError."""
    driver = UdpDriver(environment, target, part, number)
    driver.fill()
    return driver.population, driver.routes
