"""`make bench`: Shoal beside opentracker and the kernel's floor, clusters, the shard alone, in ratios of one run.

The load and the judgement are the yardstick's (`measure.py`, `measure_http.py`): processor time per answer of the
whole tracker on one core against calls of the system that do nothing else, latency at half load, every UDP answer
checked. `mixed` is latency alone: HTTP's one-shot announces beside UDP's, both in an open loop. `cluster`: gateway and
shard as two processes, by each kind of link. `growth`: cluster_cost.py. `hot`: hot_bench.py. `ladder`: ladder_bench.py.
`move`, a shard is added under load: move_bench.py. `ab`, which runs only if it is named: ab_bench.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from loadtests import ab_bench, cluster_cost, clusters, hot_bench, ladder_bench, move_bench
from loadtests.clusters import YARDSTICK, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOAL_PORT, FREE_PORT, OPENTRACKER_PORT, CLUSTER_PORT = 6971, 6973, 6975, 7100
PARTS = (
    "udp",
    "limits",
    "cold",
    "http",
    "mixed",
    "speed",
    "memory",
    "pauses",
    "rest",
    "cluster",
    "growth",
    "hot",
    "ladder",
    "move",
)
COLD_TORRENTS = 200_000  # with 4,000 peers in the first: 3.6 million in all
HTTP_TORRENTS = 500  # of the yardstick's announce.lua; their info-hashes are those of udpload's
ASKED = {"kept": 0.80, "close": 0.65}  # of the floor, over kept connections and over one an announce
HTTP_RATE, UDP_RATE = 2_000, 20_000  # announces a second of `mixed`
FILL = 800_000  # announces before that, as measure.py's
WARMUP = 1  # second
LINKS = ("tcp", "curve", "ipc")
ROUNDS = {"ab": 25, "growth": 9, "hot": 15}  # others: 5
SHORT = {"ab": 0.7, "growth": 1.0, "hot": 1.5, "ladder": 1.0, "move": 4.0}  # seconds of a load; others: 4
OF_SHARD = ("speed", "memory", "pauses")
WITHOUT_LOAD = {*OF_SHARD, "rest"}  # the yardstick is not needed for these
INTERLEAVED = ("ab", "growth", "hot", "ladder", "move")

CONFIG = """\
data: {folder}/data
gateways: [{{name: gateway1, listen: ["127.0.0.1:{port}"]}}]
shards: [{{name: shard1, memory: 2 GiB}}]
admin: null
log: {{figures: 0}}
"""
# Nobody is exempt, and the limits are far above what the load asks for: everybody pays for them.
NO_EXEMPTION = """\
limits:
  exempt: []
  connects: {rate: 100000, burst: 10000000}
  requests: {rate: 100000, burst: 10000000}
  new_swarms: 65535
  entries: 10000000
"""


def shoal(folder: Path, port: int, more: str = "") -> str:
    """The yardstick's word for a Shoal on a port."""
    name = "shoal-limits" if more else "shoal"
    file = folder / f"{name}.yaml"
    file.write_text(CONFIG.format(folder=folder, port=port) + more)
    return f"{name}:{port}:{Path(sys.executable).with_name('shoal')} up --config {file}"


def opentracker(folder: Path, torrents: int) -> list[str]:
    """The yardstick's word for opentracker; none if it is not there."""
    if not clusters.has_opentracker():
        return []
    command = clusters.opentracker_command(folder, OPENTRACKER_PORT, torrents)
    return [f"opentracker:{OPENTRACKER_PORT}:{shlex.join(command)}"]


def measure(subjects: list[str], rounds: int, *options: str) -> int:
    """Run the yardstick; its exit code."""
    command = [sys.executable, str(YARDSTICK / "measure.py"), *subjects, "--rounds", str(rounds), *options]
    return subprocess.run(command, check=False).returncode


def measure_http(subjects: list[str], rounds: int, seconds: float) -> int:
    """Run the yardstick for HTTP, and print what is asked of Shoal beside what it got; 1 if it could not be run."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: HTTP is not measured")
        return 1
    command = [sys.executable, "-u", str(YARDSTICK / "measure_http.py"), *subjects]
    failed, lines = watch([*command, "--rounds", str(rounds), "--seconds", str(round(seconds))])
    rows = [row for line in lines if (row := re.match(r"shoal +(kept|close) +[\d.]+ +([\d.]+) ", line))]
    got = {row[1]: row[2] for row in rows}
    print()
    for mode, asked in ASKED.items():
        print(f"shoal {mode}: {got.get(mode, 'nothing')} of the floor, asked for: {asked:.2f}")
    return failed


def watch(command: list[str]) -> tuple[int, list[str]]:
    """Run a command whose output is shown as it comes; whether it failed, and its lines."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return int(run.returncode != 0), lines


def measure_cluster(folder: Path, rounds: int) -> int:
    """Run the yardstick for gateway and shard as two processes, print what is asked of them; 1 if a row is invalid."""
    subjects = [shoal(folder, SHOAL_PORT), *opentracker(folder, 2000)]
    for number, kind in enumerate(LINKS):
        port = CLUSTER_PORT + 100 * number
        file = clusters.write_config(folder / kind, port, Shape(kind), admin=None)
        subjects.append(f"shoal-{kind}:{port}:{shlex.join(clusters.shoal_command(file))}")
    failed, lines = watch([sys.executable, str(YARDSTICK / "measure.py"), *subjects, "--rounds", str(rounds)])
    costs: dict[str, list[float]] = {}  # of the rounds
    for line in lines:
        if row := re.match(r"round \d+ ([\w-]+) +([\d.]+) us/answer", line):
            costs.setdefault(row[1], []).append(float(row[2]))
    if {"floor-batched", "opentracker", "shoal-tcp", "shoal-curve"} <= costs.keys():
        print_asked(costs)
    return failed


def print_asked(costs: dict[str, list[float]]) -> None:
    """What is asked of tcp links beside what they got: medians of the rounds' ratios and differences."""
    tcp = costs["shoal-tcp"]
    floor, speedup = (
        median(other / own for other, own in zip(costs[name], tcp, strict=True))
        for name in ("floor-batched", "opentracker")
    )
    more = median(curve - own for curve, own in zip(costs["shoal-curve"], tcp, strict=True))
    print(
        f"\nshoal-tcp: {floor:.2f} of the floor, asked for: 0.70; {speedup:.2f} x opentracker, asked for: 1.50; "
        f"CURVE {more:+.2f} us an answer, asked for: at most 0.80"
    )


def print_mixed(folder: Path, rounds: int, seconds: float) -> int:
    """One-shot HTTP announces beside UDP's, latency from when each was due; how many rounds had wrong answers."""
    failed = 0
    udp = ["taskset", "-c", "1", str(folder / "udpload"), "-p", str(SHOAL_PORT)]
    http = ["taskset", "-c", "1", sys.executable, "-P", "-m", "loadtests.http_load", "-p", str(SHOAL_PORT)]
    rates = [*udp, "-R", str(UDP_RATE)], [*http, "-R", str(HTTP_RATE)]
    with running(folder, "taskset", "-c", "0"):
        subprocess.run([*udp, "-F", str(FILL)], stdout=subprocess.DEVNULL, check=True)
        print(f"{'':8}{'':8} {'sent':>8} {'lost':>6} {'wrong':>6} {'p50 us':>8} {'p99 us':>8}")
        for number in range(rounds):
            loads = [
                subprocess.Popen([*rate, "-d", f"{seconds:g}", "-u", str(WARMUP)], stdout=subprocess.PIPE)
                for rate in rates
            ]
            for name, load in zip(("UDP", "HTTP"), loads, strict=True):
                told = json.loads(load.communicate()[0])
                wrong = told.get("wrong", 0) + sum(
                    told.get(kind, 0) for kind in ("errors", "malformed", "own", "strangers")
                )
                failed += wrong > 0
                print(
                    f"round {number + 1} {name:8} {told['sent']:8} {told['lost']:6} {wrong:6} "
                    f"{told['p50_us']:8.0f} {told['p99_us']:8.0f}"
                    + (f"  left {told['late_p99_us']:.0f} us late (p99)" if "late_p99_us" in told else ""),
                    flush=True,
                )
    return failed


@contextmanager
def running(folder: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A Shoal that listens; `before`: words in front of its command."""
    command = [*before, *shoal(folder, SHOAL_PORT).split(":", 2)[2].split()]
    tracker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert tracker.stdout is not None
    try:
        tracker.stdout.readline()
        yield tracker
    finally:
        tracker.send_signal(signal.SIGTERM)
        tracker.wait(10)


def print_rest(folder: Path) -> None:
    """Resident size of the tracker when nobody asks, by the processes of its tree."""
    with running(folder) as tracker:
        time.sleep(2)
        workers = Path(f"/proc/{tracker.pid}/task/{tracker.pid}/children").read_text().split()
        names = {"supervisor": tracker.pid} | {f"worker {pid}": int(pid) for pid in workers}
        sizes = {name: clusters.resident(pid) for name, pid in names.items()}
    print("resident at rest: " + ", ".join(f"{name} {size:.1f} MiB" for name, size in sizes.items()))


def yardstick(parts: list[str], rounds: int, seconds: float, folder: Path) -> int:
    """The parts that the yardstick measures; how many failed."""
    failed = 0
    if "udp" in parts or "limits" in parts:
        subjects = [shoal(folder, SHOAL_PORT)]
        if "limits" in parts:
            subjects.append(shoal(folder, FREE_PORT, NO_EXEMPTION))
        print("\nUDP, one core, 2,000 torrents")
        failed += measure(subjects + opentracker(folder, 2000), rounds)
    if "cold" in parts:
        print(f"\nUDP, one core, 3.6 million peers in {COLD_TORRENTS:,} torrents")
        subjects = [shoal(folder, SHOAL_PORT), *opentracker(folder, COLD_TORRENTS)]
        failed += measure(subjects, rounds, "--fill", "6000000", "--", "-T", str(COLD_TORRENTS))
    if "http" in parts:
        print(f"\nHTTP, one core, {HTTP_TORRENTS} torrents")
        subjects = [shoal(folder, SHOAL_PORT), *opentracker(folder, HTTP_TORRENTS)]
        failed += measure_http(subjects, rounds, seconds)
    if "mixed" in parts:
        print(f"\n{HTTP_RATE:,} one-shot HTTP announces a second beside {UDP_RATE:,} UDP announces a second, open loop")
        failed += print_mixed(folder, rounds, seconds)
    if "cluster" in parts:
        print("\nUDP, one core, 2,000 torrents, gateway and shard in one process or linked by ipc, tcp, tcp with CURVE")
        failed += measure_cluster(folder, rounds)
    return failed


def interleaved(part: str, args: argparse.Namespace, folder: Path) -> int:
    """A part whose trackers all stay up and take turns; how many failed."""
    rounds = args.rounds or ROUNDS.get(part, 5)
    seconds = args.seconds or SHORT[part]
    if part == "ab":
        return ab_bench.compare(folder, args.variants, rounds, seconds, args.window)
    if part == "growth":
        return cluster_cost.grow(folder, rounds, seconds, args.points, args.picture)
    if part == "move":
        return move_bench.move(folder, seconds)
    if part == "ladder":
        return ladder_bench.climb(folder, rounds, seconds)
    return hot_bench.compare(folder, rounds, seconds)


def alone(parts: list[str]) -> int:
    """The parts that measure a shard without a tracker around it; 1 if they failed."""
    command = [*clusters.TRACKER_CORE, sys.executable, "-P", "-m", "loadtests.shard_bench", *parts]
    return int(subprocess.run(command, check=False).returncode != 0)


def read_arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, "ab", []], help="all but ab if none is named")
    parser.add_argument("--rounds", type=count, help=f"5; {ROUNDS}")
    parser.add_argument("--seconds", type=duration, help=f"of a load of http and mixed, 4; {SHORT}")
    parser.add_argument(
        "--variants", type=ab_bench.read_variants, default="embedded,ipc,tcp,curve", help="of ab: see ab_bench.py"
    )
    parser.add_argument("--window", type=int, default=512, help="of ab: requests in flight")
    parser.add_argument(
        "--picture", type=drawable, help="of growth: the file to draw measured against foretold in, a PNG"
    )
    parser.add_argument("--points", type=writable, help="of growth: the file to keep every sample in, JSON")
    parser.add_argument(
        "--refit", type=cluster_cost.read, metavar="FILE", help="growth, from what --points kept: nothing is measured"
    )
    args = parser.parse_args()
    args.parts = args.part or list(PARTS)
    if (args.picture or args.points or args.refit) and "growth" not in args.parts:
        parser.error("--picture, --points and --refit are of growth, which is not among the parts")
    if args.refit and (args.part not in ([], ["growth"]) or args.points):
        parser.error("--refit measures nothing: no other part and no --points go with it")
    return args


def count(text: str) -> int:
    """A number of rounds. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: not a number of rounds")
    return int(text)


def duration(text: str) -> float:
    """Seconds of a load. Raises ArgumentTypeError."""
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text}: not a number of seconds")


def writable(name: str) -> Path:
    """A file to write when all is measured. Raises ArgumentTypeError if that cannot be."""
    path = Path(name)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{name}: cannot be written")
    return path


def drawable(name: str) -> Path:
    """A picture to draw when all is measured. Raises ArgumentTypeError if that cannot be."""
    if not name.endswith(".png"):
        raise argparse.ArgumentTypeError(f"{name}: not a name that ends with .png")
    return writable(name)


def main() -> int:
    """0 if every row is valid and no step was too long."""
    args = read_arguments()
    if args.refit:
        return int(cluster_cost.report(args.refit, cluster_cost.find_laws(args.refit), args.picture) > 0)
    failed = 0
    loaded = set(args.parts) - WITHOUT_LOAD
    if loaded and not (YARDSTICK / "measure.py").exists():
        print(f"no yardstick in {YARDSTICK}: set YARDSTICK to the folder with measure.py", file=sys.stderr)
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        if loaded:
            clusters.build(folder)
        failed += yardstick(args.parts, args.rounds or 5, args.seconds or 4, folder)
        for part in INTERLEAVED:
            if part in args.parts:
                failed += interleaved(part, args, folder)
        if "rest" in args.parts:
            print_rest(folder)
    if of_shard := [part for part in args.parts if part in OF_SHARD]:
        failed += alone(of_shard)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
