"""`make compare`: Shoal beside other trackers under the same load in one run, over UDP and HTTP.

    make compare
    make compare ARGS="--tracker mine:7777:'/usr/bin/mytracker --port 7777'"
    make compare ARGS="--rounds 12 --write docs/compare.md --picture docs/compare.png"

All trackers stay up, each pinned to core 0; short loads from core 1 take turns in rounds, so that noise falls on all
alike. In each round stands the kernel's floor: calls of the system that answer without a thought. A tracker's figure is
the processor time of all of its processes per answer, and the floor's of the same round over it.

UDP: the yardstick's udpload, which checks every answer; a closed loop for the cost, and an open loop at the same rate
for all, whose latency counts from when a request was due. HTTP: wrk with the yardstick's announces, over 64 kept
connections and over one connection an announce; after the rounds each tracker is asked for some of these announces
again, and its answers are checked (http_check.py). A row that did not do its work is marked INVALID with the reason.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.progress import Progress

from loadtests import clusters, compare_results, http_check, rivals
from loadtests.clusters import Shape, Tracker
from loadtests.compare_results import Contest, Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PORTS = 100  # between trackers: a cluster's links and admin addresses lie above its own port
SHOALS = {"shoal": Shape("embedded"), "shoal-tcp": Shape("tcp")}
NAMES = [*SHOALS, *rivals.MAKERS]
PROTOCOLS = ("udp", "http")
READY = {"udp": clusters.speaks_udp, "http": clusters.speaks_http}
START = 10.0  # seconds in which a tracker of the command line has to answer
console = Console(width=130)


class Subject(NamedTuple):
    """A tracker that takes part. `command` is given a folder and the port."""

    name: str
    version: str
    protocols: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    port: int
    shape: Shape | None = None
    fault: str = ""  # why it cannot take part


class Plan(NamedTuple):
    """How it is measured."""

    rounds: int
    seconds: float
    rate: int
    window: int
    fill: int
    first_port: int


# Trackers


def shoals(names: Iterable[str], first_port: int) -> list[Subject]:
    """Shoal: in one process, and gateway and shard as two that are linked by tcp, on the one core."""
    found = []
    version = clusters.commit()
    for number, name in enumerate(names):
        shape = SHOALS[name]
        found.append(Subject(name, version, PROTOCOLS, shoal_command(shape), first_port + PORTS * number, shape))
    return found


def shoal_command(shape: Shape) -> Callable[[Path, int], list[str]]:
    """The command of a Shoal of a shape."""

    def command(folder: Path, port: int) -> list[str]:
        return clusters.shoal_command(clusters.write_config(folder / f"on{port}", port, shape))

    return command


def read_tracker(text: str) -> Subject:
    """A tracker of the command line, NAME:PORT:COMMAND. Raises ArgumentTypeError."""
    name, _, rest = text.partition(":")
    port, _, command = rest.partition(":")
    if not re.fullmatch(r"[\w.+-]+", name) or not command.strip():
        raise argparse.ArgumentTypeError(f"not NAME:PORT:COMMAND: {text}")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"no port: {port}")
    return Subject(name, "of the command line", (), lambda *_: ["sh", "-c", f"exec {command}"], int(port))


def try_out(subject: Subject, folder: Path) -> Subject:
    """Start a tracker of the command line, to see which protocols it speaks."""
    spoken: set[str] = set()

    def ready(port: int) -> bool:
        spoken.update(protocol for protocol, speaks in READY.items() if speaks(port))
        return bool(spoken) or monotonic() > deadline

    if fault := taken(subject.port):
        return subject._replace(protocols=PROTOCOLS, fault=fault)
    deadline = monotonic() + START
    try:
        with clusters.started(subject.name, subject.port, subject.command(folder, subject.port), ready=ready):
            sleep(0.5 if spoken else 0)  # the other protocol may come up a little later
            ready(subject.port)
    except RuntimeError as error:
        return subject._replace(protocols=PROTOCOLS, fault=str(error))
    if not spoken:
        return subject._replace(protocols=PROTOCOLS, fault=f"answers neither UDP nor HTTP on port {subject.port}")
    return subject._replace(protocols=tuple(sorted(spoken)))


def taken(port: int) -> str:
    """Says so if another program has this port."""
    return "" if clusters.is_free(port) else f"port {port} is taken"


def start(stack: ExitStack, folder: Path, subject: Subject, protocol: str) -> Tracker:
    """Start a tracker for one protocol. Raises RuntimeError."""
    if fault := subject.fault or taken(subject.port):
        raise RuntimeError(fault)
    command = subject.command(folder, subject.port)
    ready = READY[protocol]
    return stack.enter_context(clusters.started(subject.name, subject.port, command, subject.shape, ready=ready))


def floor(protocol: str, port: int) -> Subject:
    """The kernel's floor: batched calls for UDP, one epoll loop for HTTP; answers with 50 peers."""
    options = {"udp": f"-m mmsg -z {clusters.ANSWER}", "http": f"-z {6 * rivals.PEERS}"}[protocol].split()

    def command(folder: Path, _: int) -> list[str]:
        return [str(folder / f"{protocol}floor"), "-p", str(port), *options]

    return Subject(clusters.FLOOR, "", (protocol,), command, port)


# Measuring


class Match:
    """The trackers of one protocol, running side by side, with an entry each in every contest."""

    def __init__(self, protocol: str, titles: dict[str, str], subjects: list[Subject], plan: Plan) -> None:
        self.protocol = protocol
        self.plan = plan
        self.subjects = [floor(protocol, plan.first_port), *(s for s in subjects if protocol in s.protocols)]
        self.trackers: dict[str, Tracker] = {}
        self.contests = {kind: self.contest(kind, title) for kind, title in titles.items()}

    def contest(self, kind: str, title: str) -> Contest:
        """One, without samples yet."""
        entries = [Entry(s.name, judged(s, self.protocol), s.shape is not None) for s in self.subjects]
        return Contest(title, kind, entries)

    def hold(self, folder: Path, progress: Progress) -> list[Contest]:
        """Start all, measure, stop all. Raises RuntimeError if the floor cannot be measured."""
        self.progress = progress
        self.task = progress.add_task("", total=len(self.subjects) * (2 + self.plan.rounds * len(self.contests)))
        with ExitStack() as stack:
            for subject in self.subjects:
                self.attempt(subject.name, "starts", self.enter, stack, folder, subject)
            for name in list(self.trackers):
                self.attempt(name, "is filled", self.prepare, folder, name)
            for number in range(1, self.plan.rounds + 1):
                for kind in self.contests:
                    for name in list(self.trackers):
                        self.attempt(name, f"round {number}, {kind}", self.measure, folder, name, kind, number)
            self.finish()
        progress.remove_task(self.task)
        return list(self.contests.values())

    def attempt(self, name: str, doing: str, step: Callable[..., None], *arguments: object) -> None:
        """Take a step with a tracker; one that fails is out, and its rows say why."""
        self.progress.update(self.task, description=f"{self.protocol.upper()}: {name}, {doing}")
        try:
            step(*arguments)
        except RuntimeError as error:
            if name == clusters.FLOOR:
                raise
            self.trackers.pop(name, None)
            for contest in self.contests.values():
                contest.entry(name).fault = str(error).removeprefix(f"{name} ")
        self.progress.advance(self.task)

    def enter(self, stack: ExitStack, folder: Path, subject: Subject) -> None:
        """Start a tracker."""
        self.trackers[subject.name] = start(stack, folder, subject, self.protocol)

    def prepare(self, folder: Path, name: str) -> None:
        """Let it hold the peers that all hold."""
        raise NotImplementedError

    def measure(self, folder: Path, name: str, kind: str, number: int) -> None:
        """One load in one round."""
        raise NotImplementedError

    def finish(self) -> None:
        """What is to be asked after the rounds: nothing."""


class UdpMatch(Match):
    """A closed loop for the cost, an open loop for the latency."""

    def __init__(self, subjects: list[Subject], plan: Plan) -> None:
        closed = f"UDP, closed loop, {plan.window} requests in flight"
        super().__init__(
            "udp", {"closed": closed, "open": f"UDP, open loop, {plan.rate:,} announces a second"}, subjects, plan
        )

    def prepare(self, folder: Path, name: str) -> None:
        """Announce as often to each."""
        if name != clusters.FLOOR:
            clusters.run(folder, self.trackers[name], ["-F", self.plan.fill])

    def measure(self, folder: Path, name: str, kind: str, number: int) -> None:
        """One run of udpload."""
        clusters.calm(self.trackers[name])  # the open loop may have been more than it can do
        loop = ["-W", self.plan.window] if kind == "closed" else ["-R", self.plan.rate]
        run = clusters.run(folder, self.trackers[name], ["-d", self.plan.seconds, "-S", number, *loop])
        self.contests[kind].entry(name).runs.append(run)


class HttpMatch(Match):
    """Kept connections, and one connection an announce."""

    def __init__(self, subjects: list[Subject], plan: Plan) -> None:
        titles = {"kept": "HTTP, 64 kept connections", "one-shot": "HTTP, one connection an announce"}
        super().__init__("http", titles, subjects, plan)
        self.announces = http_check.listen_to_wrk()

    def prepare(self, folder: Path, name: str) -> None:
        """Announce once all that wrk will announce."""
        if name != clusters.FLOOR:
            http_check.fill(self.trackers[name].port, self.announces)

    def measure(self, folder: Path, name: str, kind: str, number: int) -> None:
        """One run of wrk."""
        run = clusters.run_http(self.trackers[name], self.plan.seconds, close=kind == "one-shot")
        self.contests[kind].entry(name).runs.append(run)

    def finish(self) -> None:
        """Check answers of all but the floor."""
        for subject in self.subjects:
            if subject.name in self.trackers and subject.name != clusters.FLOOR:
                check = http_check.Check(self.announces)
                check.ask(subject.port)
                for contest in self.contests.values():
                    entry = contest.entry(subject.name)
                    entry.peers, entry.own = check.peers(), check.own()
                    entry.fault = check.fault(kinds_for(subject))


def judged(subject: Subject, protocol: str) -> tuple[str, ...]:
    """The kinds of wrong answers that the load generator sees. To udpload all of the floor's are wrong."""
    if subject.name == clusters.FLOOR:
        return ()
    return kinds_for(subject) if protocol == "udp" else ("errors",)


def kinds_for(subject: Subject) -> tuple[str, ...]:
    """The kinds of wrong answers that make figures invalid. Others may list an asker to itself, as several do."""
    return tuple(kind for kind in clusters.WRONG if subject.shape or kind != "own")


# The results file

HOW = """\
All trackers run side by side, each pinned to the one core 0; short loads from core 1 take turns, {rounds} rounds of
{seconds:g} s each, so that what else the machine does falls on all alike. In every round stands the
*floor*: a program of a few lines that makes the calls of the system and answers without a thought (batched calls for
UDP). *us an answer* is the processor time, user and system, of all processes of a tracker per answer: the median of the
rounds. *Of the floor* is the floor's cost over the tracker's in the same round, median and quartiles: 1.00 would cost
nothing beside the calls. A row whose work was not done is marked INVALID with the reason.

UDP: `udpload` first announces {fill:,} times to each (peers of {torrents:,} torrents), then keeps {window} requests in
flight for the cost, and sends {rate:,} announces a second, whatever comes back, for the latency, which counts from when
a request was due. It checks every answer: malformed, errors, peers of another swarm, too few peers (under 95 % of the
best), lost at the fixed rate (over 1 in 1,000). In the closed loop losses are printed and not judged, as the window may
be longer than a tracker's socket buffer. *Own*: answers that list the asker itself, which is wrong for Shoal only.

HTTP: `wrk` with 64 connections, kept or one an announce, 2,000 peers in 500 torrents; after the rounds about {samples}
answers of each tracker are checked against all that was announced. *Closed*: requests that met a connection which the
tracker had closed without saying so.

`loadtests/rivals.py` says how each of the others is built and configured, and why.
"""


def document(contests: list[Contest], missing: list[str], subjects: list[Subject], plan: Plan, picture: str) -> str:
    """The results file."""
    facts = [["date", f"{datetime.now(UTC):%Y-%m-%d}"], ["commit", clusters.commit()], *machine()]
    versions = [[subject.name, subject.version] for subject in subjects]
    told = {"torrents": rivals.TORRENTS, "samples": http_check.SAMPLES}
    parts = [
        "# Shoal beside other trackers",
        f"    {command_line()}",
        compare_results.markdown(("machine", ""), facts),
        compare_results.markdown(("tracker", "version"), versions),
        *(f"Not installed: {line}." for line in missing),
        *([f"![Microseconds an answer of each tracker]({picture})"] if picture else []),
        "## How it is measured",
        HOW.format(**plan._asdict(), **told).strip(),
        compare_results.chapters(contests),
    ]
    return "\n\n".join(parts) + "\n"


def command_line() -> str:
    """What was called."""
    words = shlex.join(sys.argv[1:])
    return f'make compare ARGS="{words}"' if words else "make compare"


def machine() -> list[list[str]]:
    """What the figures depend on."""
    return [
        ["processor", clusters.processor()],
        ["cores", str(os.cpu_count())],
        ["kernel", f"{platform.system()} {platform.release()}"],
        ["Python", platform.python_version()],
    ]


# The command


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A reader of names with commas between."""

    def read(text: str) -> list[str]:
        names = list(dict.fromkeys(text.split(",")))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (known: {', '.join(known)})")
        return names

    return read


def above_zero(kind: type[int] | type[float]) -> Callable[[str], float]:
    """A reader of numbers."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not 0 < value < 1e9:
            raise argparse.ArgumentTypeError(f"no number above zero: {text}")
        return value

    return read


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    whole, any_ = above_zero(int), above_zero(float)
    parser = argparse.ArgumentParser(
        prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trackers", type=names_of(NAMES), default=NAMES, help=f"of {','.join(NAMES)}; all by default")
    parser.add_argument(
        "--tracker", type=read_tracker, action="append", default=[], metavar="NAME:PORT:COMMAND",
        help="a further one, which speaks UDP, HTTP or both on 127.0.0.1:PORT; COMMAND is for a shell's exec",
    )  # fmt: skip
    parser.add_argument("--protocols", type=names_of(PROTOCOLS), default=list(PROTOCOLS), help="udp,http")
    parser.add_argument("--rounds", type=whole, default=8)
    parser.add_argument("--seconds", type=any_, default=1.0, help="of a load")
    parser.add_argument("--rate", type=whole, default=20_000, help="of the open loop, announces a second")
    parser.add_argument("--window", type=whole, default=512, help="of the closed loop, requests in flight")
    parser.add_argument("--fill", type=whole, default=300_000, help="announces before that, to each")
    parser.add_argument("--first-port", type=whole, default=9300, help=f"of the floor; others follow by {PORTS}")
    parser.add_argument("--rivals", type=Path, default=rivals.KEPT, help="where others are installed")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="where to write the tables")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="where to draw")
    args = parser.parse_args(words)
    names = [*args.trackers, *(subject.name for subject in args.tracker), clusters.FLOOR]
    if twice := {name for name in names if names.count(name) > 1}:
        parser.error(f"argument --tracker: the name {twice.pop()} is given twice")
    if args.first_port + PORTS * (len(NAMES) + 2) > 65535:
        parser.error(f"argument --first-port: no room for other ports above {args.first_port}")
    for path in (args.write, args.picture):
        if path is not None and not path.absolute().parent.is_dir():
            parser.error(f"no folder {path.absolute().parent} to write to")
        if path is not None and path.is_dir():
            parser.error(f"{path} is a folder")
    if args.picture is not None and args.picture.suffix != ".png":
        parser.error(f"argument --picture: not a name that ends with .png: {args.picture}")
    return args


def gather(args: argparse.Namespace, folder: Path) -> tuple[list[Subject], list[str]]:
    """The trackers that take part, and lines about those that are missing."""
    first = args.first_port + PORTS
    subjects = shoals([name for name in args.trackers if name in SHOALS], first)
    found, missing = rivals.find(args.rivals.absolute(), args.trackers)
    for number, rival in enumerate(found, len(subjects)):
        subjects.append(Subject(*rival, port=first + PORTS * number))
    subjects += [try_out(subject, folder) for subject in args.tracker]
    return subjects, missing


def measure(args: argparse.Namespace, plan: Plan) -> tuple[list[Contest], list[Subject], list[str]]:
    """All contests, who took part, and lines about who is missing. Raises RuntimeError, CalledProcessError."""
    contests: list[Contest] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # opentracker gives up root before it reads
        clusters.build(folder)
        subjects, missing = gather(args, folder)
        with Progress(console=console, transient=True) as progress:
            if "udp" in args.protocols:
                contests += UdpMatch(subjects, plan).hold(folder, progress)
            if "http" in args.protocols:
                contests += HttpMatch(subjects, plan).hold(folder, progress)
    return contests, subjects, missing


def lacking() -> str:
    """What this cannot run without, if it is not there."""
    if not (clusters.YARDSTICK / "udpload.c").exists():
        return f"no yardstick in {clusters.YARDSTICK}: set YARDSTICK to the folder with udpload.c"
    tools = [tool for tool in ("gcc", "taskset", "wrk") if shutil.which(tool) is None]
    return f"not installed: {', '.join(tools)}" if tools else ""


def main(words: list[str] | None = None) -> int:
    """0 if Shoal's rows are valid: what others cannot do is a result. 2 if it could not be run."""
    args = read_arguments(words)
    if fault := lacking():
        print(fault, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # trackers end with us
    plan = Plan(args.rounds, args.seconds, args.rate, args.window, args.fill, args.first_port)
    try:
        contests, subjects, missing = measure(args, plan)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:  # of floor, wrk, gcc: nothing to compare
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    failed = compare_results.show(console, contests, missing)
    if args.picture is not None:
        compare_results.draw(contests, args.picture)
    if args.write is not None:
        picture = os.path.relpath(args.picture, args.write.parent) if args.picture else ""
        args.write.write_text(document(contests, missing, subjects, plan, picture))
        print(f"written: {args.write}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
