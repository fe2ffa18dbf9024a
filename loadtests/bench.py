"""`make bench`: Shoal beside opentracker and the kernel's floor, and the shard alone, in ratios of one run.

The load and the judgement are the yardstick's (`measure.py`, `measure_http.py`): processor time per answer of the
whole tracker on one core against calls of the system that do nothing else, latency at half load, every UDP answer
checked. `mixed` is latency alone: HTTP's one-shot announces beside UDP's, both in an open loop.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
YARDSTICK = Path(os.environ.get("YARDSTICK", ROOT.parent / "shared" / "yardstick"))
SHOAL_PORT, FREE_PORT, OPENTRACKER_PORT = 6971, 6973, 6975
PARTS = ("udp", "limits", "cold", "http", "mixed", "speed", "memory", "pauses", "rest")
COLD_TORRENTS = 200_000  # with 4,000 peers in the first: 3.6 million in all
HTTP_TORRENTS = 500  # of the yardstick's announce.lua; their info-hashes are those of udpload's
PROBED = "00" * 20  # the info-hash that measure_http.py asks for first
ASKED = {"kept": 0.80, "close": 0.65}  # of the floor, over kept connections and over one an announce
HTTP_RATE, UDP_RATE = 2_000, 20_000  # announces a second of `mixed`
FILL = 800_000  # announces before that, as measure.py's
WARMUP = 1  # second

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


def opentracker(folder: Path, bins: Path, torrents: int) -> list[str]:
    """The yardstick's word for opentracker, which Debian builds with an allow list; none if it is not there."""
    if shutil.which("opentracker") is None:
        print("opentracker is not installed: no row for it")
        return []
    names = subprocess.run([bins / "udpload", "-T", str(torrents), "-L"], capture_output=True, check=True).stdout
    (folder / "allowed").write_bytes(names + PROBED.encode() + b"\n")
    for path in (folder, folder / "allowed"):
        path.chmod(0o755)  # it gives up root before it reads
    port = OPENTRACKER_PORT
    return [f"opentracker:{port}:opentracker -i 127.0.0.1 -P {port} -p {port} -d {folder} -w allowed"]


def measure(subjects: list[str], rounds: int, *options: str) -> int:
    """Run the yardstick; its exit code."""
    command = [sys.executable, str(YARDSTICK / "measure.py"), *subjects, "--rounds", str(rounds), *options]
    return subprocess.run(command, check=False).returncode


def measure_http(subjects: list[str], rounds: int, seconds: int) -> int:
    """Run the yardstick for HTTP, and print what is asked of Shoal beside what it got; 1 if it could not be run."""
    if shutil.which("wrk") is None:
        print("wrk is not installed: HTTP is not measured")
        return 1
    command = [sys.executable, "-u", str(YARDSTICK / "measure_http.py"), *subjects]
    command += ["--rounds", str(rounds), "--seconds", str(seconds)]
    got: dict[str, str] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="", flush=True)
            if row := re.match(r"shoal +(kept|close) +[\d.]+ +([\d.]+) ", line):
                got[row[1]] = row[2]
    print()
    for mode, asked in ASKED.items():
        print(f"shoal {mode}: {got.get(mode, 'nothing')} of the floor, asked for: {asked:.2f}")
    return 1 if run.returncode else 0


def print_mixed(folder: Path, rounds: int, seconds: int) -> int:
    """One-shot HTTP announces beside UDP's, latency from when each was due; how many rounds had wrong answers."""
    failed = 0
    udp = ["taskset", "-c", "1", str(folder / "udpload"), "-p", str(SHOAL_PORT)]
    http = ["taskset", "-c", "1", sys.executable, "-P", str(ROOT / "loadtests" / "http_load.py"), "-p", str(SHOAL_PORT)]
    rates = [*udp, "-R", str(UDP_RATE)], [*http, "-R", str(HTTP_RATE)]
    with running(folder, "taskset", "-c", "0"):
        subprocess.run([*udp, "-F", str(FILL)], stdout=subprocess.DEVNULL, check=True)
        print(f"{'':8}{'':8} {'sent':>8} {'lost':>6} {'wrong':>6} {'p50 us':>8} {'p99 us':>8}")
        for number in range(rounds):
            loads = [
                subprocess.Popen([*rate, "-d", str(seconds), "-u", str(WARMUP)], stdout=subprocess.PIPE)
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
        sizes = {"supervisor": resident(tracker.pid)} | {f"worker {pid}": resident(int(pid)) for pid in workers}
    print("resident at rest: " + ", ".join(f"{name} {size:.1f} MiB" for name, size in sizes.items()))


def resident(pid: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def yardstick(parts: list[str], rounds: int, seconds: int, folder: Path) -> int:
    """The parts that the yardstick measures; how many failed."""
    failed = 0
    subprocess.run(["gcc", "-O2", "-o", folder / "udpload", YARDSTICK / "udpload.c", "-lm"], check=True)
    if "udp" in parts or "limits" in parts:
        subjects = [shoal(folder, SHOAL_PORT)]
        if "limits" in parts:
            subjects.append(shoal(folder, FREE_PORT, NO_EXEMPTION))
        print("\nUDP, one core, 2,000 torrents")
        failed += measure(subjects + opentracker(folder, folder, 2000), rounds)
    if "cold" in parts:
        print(f"\nUDP, one core, 3.6 million peers in {COLD_TORRENTS:,} torrents")
        subjects = [shoal(folder, SHOAL_PORT), *opentracker(folder, folder, COLD_TORRENTS)]
        failed += measure(subjects, rounds, "--fill", "6000000", "--", "-T", str(COLD_TORRENTS))
    if "http" in parts:
        print(f"\nHTTP, one core, {HTTP_TORRENTS} torrents")
        subjects = [shoal(folder, SHOAL_PORT), *opentracker(folder, folder, HTTP_TORRENTS)]
        failed += measure_http(subjects, rounds, seconds)
    if "mixed" in parts:
        print(f"\n{HTTP_RATE:,} one-shot HTTP announces a second beside {UDP_RATE:,} UDP announces a second, open loop")
        failed += print_mixed(folder, rounds, seconds)
    return failed


def main() -> int:
    """0 if every row is valid and no step was too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all of them if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement of http and mixed")
    args = parser.parse_args()
    parts = args.part or list(PARTS)
    failed = 0
    if not (YARDSTICK / "measure.py").exists():
        print(f"no yardstick in {YARDSTICK}: set YARDSTICK to the folder with measure.py", file=sys.stderr)
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        failed += yardstick(parts, args.rounds, args.seconds, folder)
        if "rest" in parts:
            print_rest(folder)
    if alone := [part for part in parts if part in ("speed", "memory", "pauses")]:
        command = ["taskset", "-c", "0", sys.executable, "-P", str(ROOT / "loadtests" / "shard_bench.py"), *alone]
        failed += subprocess.run(
            command, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "loadtests")}
        ).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
