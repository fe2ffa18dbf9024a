"""`make bench`: Shoal beside opentracker and the kernel's floor, and the shard alone, in ratios of one run.

The load and the judgement are the yardstick's (`measure.py`): processor time per answer of the whole tracker on one
core against calls of the system that do nothing else, latency at half load, every answer checked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
YARDSTICK = Path(os.environ.get("YARDSTICK", ROOT.parent / "shared" / "yardstick"))
SHOAL_PORT, FREE_PORT, OPENTRACKER_PORT = 6971, 6973, 6975
PARTS = ("udp", "limits", "cold", "speed", "memory", "pauses", "rest")
COLD_TORRENTS = 200_000  # with 4,000 peers in the first: 3.6 million in all

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
    (folder / "allowed").write_bytes(names)
    for path in (folder, folder / "allowed"):
        path.chmod(0o755)  # it gives up root before it reads
    port = OPENTRACKER_PORT
    return [f"opentracker:{port}:opentracker -i 127.0.0.1 -P {port} -p {port} -d {folder} -w allowed"]


def measure(subjects: list[str], rounds: int, *options: str) -> int:
    """Run the yardstick; its exit code."""
    command = [sys.executable, str(YARDSTICK / "measure.py"), *subjects, "--rounds", str(rounds), *options]
    return subprocess.run(command, check=False).returncode


def print_rest(folder: Path) -> None:
    """Resident size of the tracker when nobody asks, by the processes of its tree."""
    import signal
    import time

    command = shoal(folder, SHOAL_PORT).split(":", 2)[2].split()
    tracker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert tracker.stdout is not None
    tracker.stdout.readline()
    time.sleep(2)
    workers = Path(f"/proc/{tracker.pid}/task/{tracker.pid}/children").read_text().split()
    sizes = {"supervisor": resident(tracker.pid)} | {f"worker {pid}": resident(int(pid)) for pid in workers}
    tracker.send_signal(signal.SIGTERM)
    tracker.wait(10)
    print("resident at rest: " + ", ".join(f"{name} {size:.1f} MiB" for name, size in sizes.items()))


def resident(pid: int) -> float:
    """Resident MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def yardstick(parts: list[str], rounds: int, folder: Path) -> int:
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
    return failed


def main() -> int:
    """0 if every row is valid and no step was too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="all of them if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    parts = args.part or list(PARTS)
    failed = 0
    if not (YARDSTICK / "measure.py").exists():
        print(f"no yardstick in {YARDSTICK}: set YARDSTICK to the folder with measure.py", file=sys.stderr)
        return 2
    with TemporaryDirectory() as name:
        folder = Path(name)
        failed += yardstick(parts, args.rounds, folder)
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
