"""Trackers for benches, embedded or clusters: their configurations, processes and costs; and the yardstick's load.

Trackers run on core 0 and the load on core 1, as `measure.py` has it. Several trackers stay up side by side, so that
short loads can take turns and noise falls on all alike. Processor time is /proc's schedstat, in nanoseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.client import HTTPException
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from urllib.request import urlopen

from common import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

ROOT = Path(__file__).resolve().parents[1]
ROLES = {b"gateway": "gateway", b"shard": "shard", b"cluster.embedded": "embedded"}  # by the module that is run
YARDSTICK = Path(os.environ.get("YARDSTICK", ROOT.parent / "shared" / "yardstick"))
TRACKER_CORE, LOAD_CORE = ["taskset", "-c", "0"], ["taskset", "-c", "1"]
LINK, ADMIN = 20, 50  # ports of a cluster's links and admin addresses begin so far above its own
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
PATIENCE = 90.0  # seconds for a cluster to start on one core
LONGEST = 300.0  # seconds after which a load is given up: its tracker answers next to nothing
BUSY = 0.2  # of a core: more than periodic work takes
WRONG = ("errors", "malformed", "strangers", "own")  # what no answer may be
LOST = 1_000  # one answer in so many may be
PROBED = "00" * 20  # the info-hash that an HTTP tracker is asked for first, here and by measure_http.py
PROBE = "/announce?info_hash=" + "%00" * 20 + "&peer_id=-YS0001-000000000000&port=6881&uploaded=0&downloaded=0&left=0"
ANSWER = 320  # bytes: the floor's, for an answer with 50 peers
FLOOR, OPENTRACKER = "floor", "opentracker"  # names of trackers that are not Shoal


class Shape(NamedTuple):
    """kind: embedded, or what the links are: ipc, tcp, curve."""

    kind: str
    gateways: int = 1
    shards: int = 1

    def __str__(self) -> str:
        return self.kind if self.gateways == self.shards == 1 else f"{self.kind}{self.gateways}x{self.shards}"


def write_config(folder: Path, port: int, shape: Shape, **settings: object) -> Path:
    """The file of a cluster whose gateways share a port. `settings`: of the configuration, beside what is made here."""
    folder.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "data": str(folder / "data"),
        "admin": f"127.0.0.1:{port + ADMIN}",
        "log": {"figures": 0},
        "gateways": [{"name": f"g{n}", "listen": [f"127.0.0.1:{port}"]} for n in range(shape.gateways)],
        "shards": [
            {"name": f"s{n}", "memory": "1 GiB"} | link_of(folder, port, shape.kind, n) for n in range(shape.shards)
        ],
    }
    if shape.kind == "curve":
        keys.make(folder / "keys")
        public = keys.make_node_key(folder / "keys", "here").public
        document |= {"keys": str(folder / "keys"), "nodes": [{"name": "here", "key": public}]}
    file = folder / "cluster.yaml"
    file.write_text(json.dumps(document | settings))
    return file


def link_of(folder: Path, port: int, kind: str, number: int) -> dict[str, str]:
    """The field of a shard that says where it is reached."""
    if kind == "embedded":
        return {}
    return {"link": f"ipc://{folder}/s{number}" if kind == "ipc" else f"tcp://127.0.0.1:{port + LINK + number}"}


def commit() -> str:
    """The commit of this checkout, marked if other files than docs differ from it; `unknown` without git."""
    try:
        head = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")  # results are written there
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def git(*words: str) -> str:
    """What git says of this checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def processor() -> str:
    """The model of this machine's processor, or what kind it is."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def family_of(host: str) -> socket.AddressFamily:
    """Of an address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody has a port, by TCP or UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family_of(host), kind) as sock:
            if kind == socket.SOCK_STREAM:  # connections that have ended do not count
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                return False
    return True


def build(folder: Path) -> None:
    """Compile the yardstick's programs."""
    for name, libraries in (("udpload", ["-lm"]), ("udpfloor", []), ("httpfloor", [])):
        subprocess.run(["gcc", "-O2", "-o", folder / name, YARDSTICK / f"{name}.c", *libraries], check=True)


def has_opentracker() -> bool:
    """Whether it is installed; says so if not."""
    if shutil.which("opentracker") is None:
        print("opentracker is not installed: no row for it")
        return False
    return True


def opentracker_command(folder: Path, port: int, torrents: int) -> list[str]:
    """opentracker, which Debian builds with an allow list. The programs are in the folder."""
    names = subprocess.run([folder / "udpload", "-T", str(torrents), "-L"], capture_output=True, check=True).stdout
    (folder / "allowed").write_bytes(names + PROBED.encode() + b"\n")
    for path in (folder, folder / "allowed"):
        path.chmod(0o755)  # it gives up root before it reads
    return ["opentracker", *f"-i 127.0.0.1 -P {port} -p {port} -d {folder} -w allowed".split()]


class Tracker:
    """A running tracker; `shape` is None if it is not Shoal."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], shape: Shape | None) -> None:
        self.name = name
        self.port = port
        self.process = process
        self.shape = shape

    def wait(self, ready: Callable[[int], bool]) -> None:
        """Until its port is ready, and every gateway hears every shard. Raises RuntimeError if it does not start."""
        deadline = time.monotonic() + PATIENCE
        while not (ready(self.port) and self._hears()):
            if (status := self.process.poll()) is not None:
                raise RuntimeError(f"{self.name} does not start: it ended with {status}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start: nothing answers on port {self.port}")
            time.sleep(0.1)

    def spent(self) -> Counter[str]:
        """Nanoseconds of processor time so far, by what the processes are: gateway, shard, embedded, other."""
        total: Counter[str] = Counter()
        for pid in descendants(self.process.pid):
            total[role_of(pid)] += nanoseconds(pid)
        return total

    def count(self, metric: str) -> float:
        """The sum over gateways of what begins so in their metrics. Costs them milliseconds."""
        gateways = self.shape.gateways if self.shape else 0
        lines = [line for n in range(gateways) for line in self.metrics(n) if line.startswith(metric)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def metrics(self, number: int) -> list[str]:
        """Lines of a gateway's metrics. Raises OSError."""
        url = f"http://127.0.0.1:{self.port + ADMIN + number}/metrics"
        with urlopen(url, timeout=10) as answer:
            text: bytes = answer.read()
        return text.decode().splitlines()

    def _hears(self) -> bool:
        if self.shape is None or self.shape.kind == "embedded":
            return True
        try:
            return self.count("shoal_link_heard{") == self.shape.gateways * self.shape.shards
        except OSError:
            return False


CONNECT = bytes.fromhex("0000041727101980") + bytes(4) + b"yard"


def speaks_udp(port: int, host: str = "127.0.0.1", patience: float = 0.5) -> bool:
    """Whether a connect request is answered. `host`: an address."""
    with socket.socket(family_of(host), socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience)
        try:
            sock.connect((host, port))
            sock.send(CONNECT)
            return len(sock.recv(64)) == 16
        except OSError:
            return False


def speaks_http(port: int) -> bool:
    """Whether an announce is answered."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{PROBE}&compact=1", timeout=1) as answer:
            body: bytes = answer.read()
    except (OSError, HTTPException):
        return False
    return body.startswith(b"d") and b"5:peers" in body


@contextmanager
def started(
    name: str,
    port: int,
    command: list[str],
    shape: Shape | None = None,
    tree: Path | None = None,
    ready: Callable[[int], bool] = speaks_udp,
) -> Iterator[Tracker]:
    """Run a tracker on its core. `tree`: the checkout whose code it is, if not this one. Raises RuntimeError."""
    env = os.environ | {"PYTHONPATH": str(tree)} if tree else None
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    quiet["preexec_fn"] = end_with_parent
    process = subprocess.Popen([*TRACKER_CORE, *command], cwd="/", env=env, **quiet)
    try:
        tracker = Tracker(name, port, process, shape)
        tracker.wait(ready)
        yield tracker
    finally:
        stop(process)


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it has ended, be it killed (prctl(2))."""
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a tracker, by force if it does not end itself; and whatever it left running."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def shoal_command(file: Path) -> list[str]:
    """A Shoal with all of its processes."""
    return [sys.executable, "-P", "-m", "cluster", "up", "--config", str(file)]


def shoal(
    folder: Path, port: int, shape: Shape, name: str = "", tree: Path | None = None, **settings: object
) -> AbstractContextManager[Tracker]:
    """Run a Shoal with a folder of its own. `settings`: of its configuration."""
    command = shoal_command(write_config(folder / f"on{port}", port, shape, **settings))
    return started(name or str(shape), port, command, shape, tree)


def opentracker(folder: Path, port: int, torrents: int) -> AbstractContextManager[Tracker]:
    """Run opentracker."""
    return started(OPENTRACKER, port, opentracker_command(folder, port, torrents))


def floor(folder: Path, port: int) -> AbstractContextManager[Tracker]:
    """Run the floor: batched calls of the system, and answers of the right size without a thought."""
    command = [str(folder / "udpfloor"), *f"-p {port} -m mmsg -z {ANSWER}".split()]
    return started(FLOOR, port, command)


# Processes


def descendants(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def role_of(pid: int) -> str:
    """What a process of a tracker is."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return next((role for module, role in ROLES.items() if module in words), "other")


def resident(pid: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def nanoseconds(pid: int) -> int:
    """Processor time of all threads of a process."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def idle(tracker: Tracker, seconds: float) -> dict[str, float]:
    """The share of a core that a tracker's processes take when nobody asks, by what they are."""
    before, began = tracker.spent(), time.monotonic_ns()
    time.sleep(seconds)
    after, took = tracker.spent(), time.monotonic_ns() - began
    return {role: (after[role] - before[role]) / took for role in after}


# Load


class Load:
    """One run of the yardstick's load generator, in the background until its result is asked for."""

    def __init__(self, folder: Path, port: int, *options: object) -> None:
        self.process = begin_load([str(folder / "udpload"), "-p", str(port), *map(str, options)])

    def result(self) -> dict[str, float]:
        """What it found. Raises RuntimeError."""
        found: dict[str, float] = json.loads(output(self.process, "udpload"))
        return found


class HttpLoad:
    """One run of wrk with the yardstick's announces: 64 kept connections, or one connection an announce."""

    def __init__(self, port: int, seconds: float, close: bool) -> None:
        self.seconds = seconds
        script = ["-s", str(YARDSTICK / "announce.lua"), f"http://127.0.0.1:{port}/", *(["--", "close"] * close)]
        self.process = begin_load(["wrk", "-t1", "-c64", f"-d{ceil(seconds) + 1}s", *script])

    def result(self) -> dict[str, float]:
        """What it found, as udpload names it; errors are answers that are not 2xx. Raises RuntimeError."""
        try:
            self.process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)  # it reports and ends; of itself it counts whole seconds only
        return read_wrk(output(self.process, "wrk").decode())


def begin_load(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a load on its core. It ends with us: udpload would go on to fill a tracker that is gone."""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "preexec_fn": end_with_parent}
    return subprocess.Popen([*LOAD_CORE, *command], **options)


def read_wrk(text: str) -> dict[str, float]:
    """wrk's report in udpload's words.

    Lost: connections refused, and answers late by over 2 seconds. Closed: requests whose connection the tracker had
    closed without saying so in the answer before; wrk sends each again.
    """

    def number(pattern: str) -> float:
        return sum(float(found) for found in re.findall(pattern, text))

    answers = number(r"(\d+) requests in")
    lost, closed = (
        sum(number(rf"Socket errors:.* {kind} (\d+)") for kind in kinds)
        for kinds in (("connect", "timeout"), ("read", "write"))
    )
    rate, errors = number(r"Requests/sec: +([\d.]+)"), number(r"Non-2xx or 3xx responses: (\d+)")
    sent = answers + lost + closed
    return {"answers": answers, "sent": sent, "lost": lost, "closed": closed, "errors": errors, "rps": rate}


def output(process: subprocess.Popen[bytes], name: str) -> bytes:
    """What a load printed. Raises RuntimeError if it failed, or goes on for too long."""
    try:
        text, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"{name} did not end within {LONGEST:.0f} s") from None
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return text


def faults(found: Sequence[dict[str, float]], kinds: Iterable[str] = WRONG) -> str:
    """What makes the figures of several runs invalid, if anything does: wrong answers, or too many that were lost."""
    total = {kind: sum(each[kind] for each in found) for kind in (*kinds, "lost", "sent")}
    sent = total.pop("sent")
    if total["lost"] * LOST <= sent:
        del total["lost"]
    wrong = ", ".join(f"{count:.0f} {kind}" for kind, count in total.items() if count)
    return f"INVALID: {wrong}" if wrong else ""


def judge(tracker: Tracker, found: Sequence[dict[str, float]]) -> str:
    """What makes a tracker's figures invalid. The floor's peers are made up; some list askers to themselves."""
    if tracker.name == FLOOR:
        return faults(found, ("errors", "malformed"))
    return faults(found, WRONG if tracker.shape else ("errors", "malformed", "strangers"))


def calm(tracker: Tracker, longest: float = 3.0) -> None:
    """Wait until a tracker has done what an earlier load left it to do, so that the next one is not charged for it."""
    deadline = time.monotonic() + longest
    while sum(idle(tracker, SETTLE).values()) > BUSY and time.monotonic() < deadline:
        pass


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """A quarter of the values is below the first, half below the second (the median), a quarter above the third."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    method: Literal["exclusive", "inclusive"] = (
        "exclusive" if len(values) > 2 else "inclusive"
    )  # which of two would be beyond them
    low, _, high = quantiles(values, n=4, method=method)
    return low, median(values), high


class Run(NamedTuple):
    """Loads that ran at once, and what the tracker's processes spent on them."""

    found: list[dict[str, float]]
    spent: Counter[str]

    @property
    def answers(self) -> float:
        """Of all loads."""
        return sum(found["answers"] for found in self.found)

    def microseconds(self, role: str | None = None) -> float:
        """Processor time an answer, of the whole tracker or of some of its processes."""
        return (self.spent[role] if role else self.spent.total()) / 1e3 / max(self.answers, 1)


def of_floor(floor: Sequence[Run], own: Sequence[Run]) -> list[float]:
    """The floor's processor time an answer over a tracker's, round by round: 1 is as cheap as the system's calls."""
    return [least.microseconds() / run.microseconds() for least, run in zip(floor, own, strict=True)]


SETTLE = 0.05  # seconds in which a tracker answers what was in flight when the load ended


def run(folder: Path, tracker: Tracker, *loads: list[object]) -> Run:
    """Run loads at once, each given by its options."""
    return spend(tracker, lambda: [Load(folder, tracker.port, *options) for options in loads])


def run_http(tracker: Tracker, seconds: float, close: bool) -> Run:
    """Run wrk. `close`: one connection an announce."""
    return spend(tracker, lambda: [HttpLoad(tracker.port, seconds, close)])


class Running(Protocol):
    """A load that was begun."""

    def result(self) -> dict[str, float]:
        """What it found. Raises RuntimeError."""
        ...


def spend(tracker: Tracker, begin: Callable[[], Sequence[Running]]) -> Run:
    """Begin loads, and see what a tracker spends on them. Raises RuntimeError if a load fails."""
    before = tracker.spent()
    found = [load.result() for load in begin()]
    time.sleep(SETTLE)
    return Run(found, tracker.spent() - before)
