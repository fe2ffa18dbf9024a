"""`make bench ARGS="hot"`: 80 % of all announces on one torrent of 500,000 peers, against evenly spread ones.

Both loads ask the same tracker with the same peers stored, in turns, so nothing differs but where announces go. Each
is two runs of udpload side by side, one with 80 % of the requests, one with 20 %:

    hot      80 % on the one torrent (-T 1), the others on 2,000 torrents
    even     both on the 2,000 torrents, of which the first and largest gets 2 %

udpload's torrent 0 is the hot one and among the 2,000 too (all in all it gets 80.4 %). udpload itself knows at most
1,073 peers an address and 200 addresses, 214,600 peers a torrent. So a loader announces all 500,000 first, for
addresses that the tracker is told to believe it (`trust_ip_field`), and with ports as udpload chooses them, so that it
can tell peers of another swarm. The 2,000 have about 700,000 peers: neither load fits into the processor's cache.

Cost: closed loop, windows of 512 and 128 in flight. Windows set shares only if answers are equally quick: the share
that came out is printed. Latency: open loop at half of the evenly spread load's rate, p99 of the larger run.

At the end: how many gateways one shard can feed on a single torrent. A shard's cost of an announce is the shard
bench's, frames in to frames out, and once more what the shards' processes spent, links included; a gateway's is from
the hot load.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from loadtests import clusters, shard_bench
from loadtests.clusters import Run, Shape, Tracker
from loadtests.shard_bench import HOT_PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES = [Shape("embedded"), Shape("tcp", 1, 2)]
FIRST_PORT, PORTS = 9100, 100
RESIDUES, PORTS_EACH = 61, 1073  # udpload's: ports of a torrent, and how many an address has
SOURCES = 200
HOT = ["-T", 1, "-P", SOURCES * PORTS_EACH]
EVEN = ["-T", 2000, "-P", 8000]
FILL = 3_000_000  # announces that store nearly all of the even load's peers
SHARE = 0.8
WINDOWS = 512, 128
IN_FLIGHT = 64  # of the loader
ALLOWED = 0.10
CONNECT = struct.Struct(">QII")
ANNOUNCE = struct.Struct(">8sII20s20s8xQ8xI4sIiH")
console = Console(width=120)


def info_hash(folder: Path) -> bytes:
    """Of the hot torrent."""
    text = subprocess.run([folder / "udpload", "-T", "1", "-L"], capture_output=True, check=True).stdout
    return bytes.fromhex(text.decode())


def fill_hot(port: int, torrent: bytes) -> None:
    """Announce every peer of the hot torrent once; those of the hot load are the first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        sock.send(CONNECT.pack(0x41727101980, 0, 1))
        connection = sock.recv(64)[8:]
        for first in range(0, HOT_PEERS, IN_FLIGHT):
            numbers = range(first, min(first + IN_FLIGHT, HOT_PEERS))
            for number in numbers:
                sock.send(announce(connection, torrent, number))
            for _ in numbers:
                if sock.recv(2048)[3] != 1:
                    raise RuntimeError("the tracker refuses to store the hot torrent")


def announce(connection: bytes, torrent: bytes, number: int) -> bytes:
    """The announce of a peer, who wants none: a leecher as udpload has it, at 127.0.0.1 or an address after it."""
    source, index = divmod(number, PORTS_EACH)
    address = (0x7F000001 + source).to_bytes(4, "big")
    return ANNOUNCE.pack(connection, 1, number, torrent, bytes(20), 1, 0, address, 0, 0, index * RESIDUES + 1)


class Sample(NamedTuple):
    """The same load once in a closed loop and once in an open one."""

    cost: float  # microseconds an answer
    gateways: float
    shards: float
    share: float  # of the larger run
    p99: float  # of the larger run, microseconds


class Subject:
    """A tracker under both loads."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.rate = 0.0  # of the open loop
        self.samples: dict[str, list[Sample]] = {"even": [], "hot": []}
        self.found: dict[str, list[dict[str, float]]] = {"even": [], "hot": []}

    def fill(self, folder: Path) -> None:
        """Store everybody."""
        fill_hot(self.tracker.port, info_hash(folder))
        clusters.run(folder, self.tracker, [*EVEN, "-N", SOURCES, "-F", FILL])

    def measure(self, folder: Path, load: str, seconds: float, seed: int) -> None:
        """Take one sample. The first one must be of the even load."""
        larger = HOT if load == "hot" else EVEN

        def run(flag: str, first: float, second: float) -> Run:
            common = ["-N", SOURCES, "-d", seconds, "-S"]
            loads = [[*larger, *common, seed, flag, first], [*EVEN, *common, seed + 1000, flag, second]]
            return clusters.run(folder, self.tracker, *loads)

        closed = run("-W", *WINDOWS)
        self.rate = self.rate or sum(found["rps"] for found in closed.found) / 2
        opened = run("-R", SHARE * self.rate, (1 - SHARE) * self.rate)
        self.found[load] += [*closed.found, *opened.found]
        self.samples[load].append(
            Sample(
                closed.microseconds(), closed.microseconds("gateway"), closed.microseconds("shard"),
                closed.found[0]["answers"] / closed.answers, opened.found[0]["p99_us"],
            )
        )  # fmt: skip

    def row(self, load: str) -> Sample:
        """Medians of the rounds."""
        return Sample(*map(median, zip(*self.samples[load], strict=True)))

    def more(self, value: Callable[[Sample], float]) -> float:
        """How much more the hot load needs: the median of the rounds' ratios, less 1."""
        pairs = zip(self.samples["hot"], self.samples["even"], strict=True)
        return median(value(hot) / value(even) for hot, even in pairs) - 1


def start(stack: ExitStack, folder: Path) -> list[Subject]:
    """Start one tracker of each shape, and fill it."""
    subjects = []
    for number, shape in enumerate(SHAPES):
        port = FIRST_PORT + PORTS * number
        tracker = stack.enter_context(clusters.shoal(folder, port, shape, trust_ip_field=["127.0.0.1/32"]))
        subjects.append(Subject(tracker))
        subjects[-1].fill(folder)
    return subjects


def compare(folder: Path, rounds: int, seconds: float) -> int:
    """Measure and print tables; how many rows are invalid."""
    with ExitStack() as stack:
        subjects = start(stack, folder)
        for number in range(rounds):
            for load in (("even", "hot"), ("hot", "even"))[number % 2]:
                for subject in subjects:
                    subject.measure(folder, load, seconds, number + 1)
    failed = sum(show(subject) for subject in subjects)
    show_gateways(next(subject for subject in subjects if subject.tracker.name != "embedded"))
    return failed


def show(subject: Subject) -> int:
    """Print both loads of a tracker; how many rows are invalid."""
    table = Table(title=f"{subject.tracker.name}: one torrent of {HOT_PEERS:,} peers, medians")
    for title in ("load", "us an answer", "gateways", "shards", "share of the larger run", "p99, us", ""):
        table.add_column(title, justify="right")
    failed = 0
    for load in subject.samples:
        row = subject.row(load)
        wrong = clusters.faults(subject.found[load])
        failed += bool(wrong)
        table.add_row(
            load, f"{row.cost:.2f}", f"{row.gateways:.2f}", f"{row.shards:.2f}", f"{row.share:.1%}", f"{row.p99:,.0f}",
            wrong,
        )  # fmt: skip
    console.print(table)
    cost, p99 = subject.more(lambda sample: sample.cost), subject.more(lambda sample: sample.p99)
    print(f"{subject.tracker.name}: hot costs {cost:+.1%} an answer, p99 {p99:+.1%}; asked for: at most {ALLOWED:.0%}")
    return failed


def show_gateways(subject: Subject) -> None:
    """Print how many gateways one shard can feed on a single torrent."""
    with on_core(0):
        alone = shard_bench.one_torrent()
    shard_bench.print_speeds([alone])
    hot = subject.row("hot")
    for who, cost in (
        ("frames in to frames out", alone.nanoseconds / 1e3),
        ("its process, links included", hot.shards),
    ):
        print(
            f"one torrent: a gateway passes on {1 / hot.gateways:.2f} million announces/s a core, a shard ({who}) "
            f"{1 / cost:.2f} million: it feeds {hot.gateways / cost:.1f} gateways"
        )


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Stay on a core meanwhile."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
