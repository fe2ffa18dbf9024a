"""What the command line of a load may say."""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
from pathlib import Path
from typing import NoReturn

from loadtests.load import trackers
from loadtests.load.scenarios import SCENARIOS, Scenario

EMBEDDED = "embedded"
WEB_PORT = 8089
JUDGED = ("seconds", "report", "summary", "results")  # of no use to the web page
QUOTAS = {"embedded": 0.1, "cluster": 0.2}  # a cluster has idle costs, and pings that must be answered in time
OWN_ONLY = {  # courses that hold the tracker's processes, and what for
    "overload": "gives the tracker's processes a quota",
    "restarts": "restarts the tracker's processes",
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Print it, and exit with status 2."""
        print(f"load: {message}", file=sys.stderr)
        sys.exit(2)


def read(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for; exits with status 2 and one line if that cannot be."""
    parser = Parser(prog="load", description="Put a load on a tracker, check every answer, and judge.")
    names = ", ".join(SCENARIOS)
    parser.add_argument("scenario", nargs="?", help=names)
    parser.add_argument("--tracker", default=EMBEDDED, help="embedded, cluster, or udp://HOST:PORT of one that runs")
    parser.add_argument("--seconds", type=positive, help="of the measured time, if not the scenario's")
    parser.add_argument("--scale", type=positive, default=1.0, help="times the scenario's rates, torrents and peers")
    parser.add_argument("--workers", type=count, default=0, help="processes that make the load; 0: this one does")
    parser.add_argument("--sources", type=addresses, default=(), help="local addresses that the load comes from")
    parser.add_argument("--quota", type=share, help=f"of overload: the tracker's share of a core; {QUOTAS}")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="where to write locust's report and ours")
    parser.add_argument("--summary", type=Path, metavar="FILE.md", help="where to write our report alone")
    parser.add_argument("--results", type=Path, metavar="FILE.md", help="a table that gets a row")
    parser.add_argument("--web", action="store_true", help="locust's web page; nothing is judged")
    parser.add_argument("--port", type=port, help=f"of the web page, {WEB_PORT}")
    options = parser.parse_args(words)
    if options.scenario is None and options.web:
        options.scenario = "steady"
    if options.scenario not in SCENARIOS:
        said = f"no scenario {options.scenario!r}" if options.scenario else "which scenario?"
        parser.error(f"{said} There are {names}" if said.endswith("?") else f"{said}; there are {names}")
    if reason := refusal(options):
        parser.error(reason)
    options.port = WEB_PORT if options.port is None else options.port
    options.quota = options.quota or QUOTAS.get(options.tracker, 1.0)
    return options


def refusal(options: argparse.Namespace) -> str:
    """Why what is asked for cannot be done; nothing if it can."""
    scenario = SCENARIOS[options.scenario]
    try:
        running = trackers.read_address(options.tracker) is not None
    except ValueError as error:
        return str(error)
    if running and scenario.course in OWN_ONLY:
        return f"{scenario.name} {OWN_ONLY[scenario.course]}: it starts its own (--tracker embedded or cluster)"
    if options.web and (options.workers or scenario.course != "plain"):
        return "the web page runs a plain scenario in one process: " + ", ".join(plain_names())
    wanted = WEB_PORT if options.port is None else options.port
    if options.web and wanted and not trackers.is_free(wanted):
        return f"argument --port: {wanted} is not free"
    if unused := useless(options, scenario):
        return unused
    told = (unwritable(name, getattr(options, name)) for name in ("report", "summary", "results"))
    return next(filter(None, told), "")


def useless(options: argparse.Namespace, scenario: Scenario) -> str:
    """What is asked for and would change nothing; nothing if there is no such thing."""
    if options.quota is not None and scenario.course != "overload":
        return f"argument --quota: {scenario.name} has none, only overload does"
    if options.port is not None and not options.web:
        return "argument --port: it is the web page's, make load-web"
    given = [name for name in JUDGED if options.web and getattr(options, name) is not None]
    return f"argument --{given[0]}: the web page runs until it is stopped, and judges nothing" if given else ""


def unwritable(name: str, path: Path | None) -> str:
    """Why a file that is asked for cannot be written; nothing if it can."""
    if path is not None and not path.absolute().parent.is_dir():
        return f"argument --{name}: no directory {path.absolute().parent}"
    return f"argument --{name}: {path} is a directory" if path is not None and path.is_dir() else ""


def plain_names() -> list[str]:
    """Scenarios that are nothing but a load."""
    return [name for name, scenario in SCENARIOS.items() if scenario.course == "plain"]


def chosen(options: argparse.Namespace) -> Scenario:
    """The scenario that is asked for, with the measured time that is."""
    scenario = SCENARIOS[options.scenario]
    return scenario._replace(seconds=options.seconds or scenario.seconds)


def addresses(text: str) -> tuple[str, ...]:
    """Addresses of this machine with commas between them."""
    try:
        found = tuple(ipaddress.ip_address(word.strip()) for word in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    for each in found:
        if each.is_unspecified or not is_ours(str(each)):
            raise argparse.ArgumentTypeError(f"{each} is no address of this machine")
    return tuple(map(str, found))


def is_ours(address: str) -> bool:
    """Whether this machine can send from an address."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((address, 0))
    except OSError:  # not even a socket, if there is no IPv6
        return False
    return True


def read_number(text: str, kind: type[int] | type[float], expected: str) -> float:
    """A number of a kind. Raises ArgumentTypeError."""
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}") from None


def positive(text: str) -> float:
    """A number above 0."""
    number = read_number(text, float, "a number above 0")
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number


def share(text: str) -> float:
    """A share of a core."""
    number = read_number(text, float, "0.1 to 1 of a core")
    if not 0.1 <= number <= 1:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 1 of a core, found {text!r}")
    return number


def count(text: str) -> int:
    """How many processes."""
    number = int(read_number(text, int, "0 to 64"))
    if not 0 <= number <= 64:
        raise argparse.ArgumentTypeError(f"expected 0 to 64, found {text!r}")
    return number


def port(text: str) -> int:
    """Of TCP."""
    number = int(read_number(text, int, "0 to 65535"))
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, found {text!r}")
    return number
