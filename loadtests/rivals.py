"""Other trackers for compare.py: installed once into a folder that git ignores, and configured for one core.

Each gets the best settings that its own documents name, and what makes the work equal: 50 peers an answer, one core,
no statistics. What cannot be installed is told with the reason, and the comparison goes on without it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from loadtests import clusters

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = clusters.ROOT / ".rivals"
AQUATIC = "0.9.0"  # the newest release on crates.io
BITTORRENT_TRACKER = "11.2.3"
TORRENTS = 2000  # of udpload; announce.lua's 500 are the first of them
PEERS = 50  # an answer

# As its workspace builds it (lto) and its README recommends (native). The exporter of metrics is left out: it is off by
# default, and its crate does not compile with newer compilers. Its allocator stays.
AQUATIC_BUILD = {"RUSTFLAGS": "-C target-cpu=native", "CARGO_PROFILE_RELEASE_LTO": "thin"}
AQUATIC_FEATURES = {"aquatic_udp": "mimalloc,io-uring", "aquatic_http": "mimalloc"}

# One worker, as there is one core; 50 peers rather than 30. Statistics are off by default.
AQUATIC_UDP = """\
socket_workers = 1
[network]
address = "127.0.0.1:{port}"
use_io_uring = {io_uring}
[protocol]
max_response_peers = {peers}
"""
# Its least: a worker for sockets and one for swarms, here on the same core.
AQUATIC_HTTP = """\
socket_workers = 1
swarm_workers = 1
[network]
address = "127.0.0.1:{port}"
keep_alive = true
[protocol]
max_peers = {peers}
"""

# What its command does, without WebTorrent (whose client wants a native module) and without the statistics page. It
# has one thread. The buffer holds the 512 requests of the closed loop, which the system's default does not. It keeps
# 1,000 peers a torrent, its default: more would cost it more.
BITTORRENT_TRACKER_MAIN = """\
import Server from './node_modules/bittorrent-tracker/server.js'
const server = new Server({ http: true, udp: { recvBufferSize: 524288 }, ws: false, stats: false })
server.on('error', error => { console.error(error.message); process.exit(1) })
server.listen(Number(process.argv[2]), { http: '127.0.0.1', udp4: '127.0.0.1', udp6: '::1' })
"""


class Rival(NamedTuple):
    """Another tracker. `command` is given a folder, in which the yardstick's programs are, and a port."""

    name: str
    version: str
    protocols: tuple[str, ...]  # udp, http
    command: Callable[[Path, int], list[str]]


class MissingError(Exception):
    """A tracker cannot be installed; the reason."""


def find(kept: Path, names: list[str] | None = None) -> tuple[list[Rival], list[str]]:
    """Those of these names (all, if None), installed if need be, and lines about those that cannot be."""
    found: list[Rival] = []
    missing = []
    for name, maker in MAKERS.items():
        if names is not None and name not in names:
            continue
        try:
            found.append(maker(kept))
        except MissingError as error:
            missing.append(f"{name}: {error}")
    return found, missing


def opentracker(_: Path) -> Rival:
    """Debian's package: one thread serves both protocols, which is what it does best on one core."""
    if shutil.which("opentracker") is None:
        raise MissingError("no command opentracker (Debian's package of that name)")
    return Rival("opentracker", debian_version("opentracker"), ("udp", "http"), opentracker_command)


def opentracker_command(folder: Path, port: int) -> list[str]:
    """Its command."""
    return clusters.opentracker_command(folder, port, TORRENTS)


def debian_version(package: str) -> str:
    """Of an installed package; "unknown" elsewhere."""
    try:
        asked = ["dpkg-query", "-W", "-f", "${Version}", package]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def aquatic_uring(kept: Path) -> Rival:
    """aquatic_udp by io_uring: the faster of its two ways."""
    return aquatic("aquatic-uring", "udp", cargo_install(kept, "aquatic_udp"), AQUATIC_UDP, "true")


def aquatic_mio(kept: Path) -> Rival:
    """aquatic_udp by a call a packet, for systems that forbid io_uring."""
    return aquatic("aquatic-mio", "udp", cargo_install(kept, "aquatic_udp"), AQUATIC_UDP, "false")


def aquatic_http(kept: Path) -> Rival:
    """aquatic_http, which has io_uring only."""
    return aquatic("aquatic-http", "http", cargo_install(kept, "aquatic_http"), AQUATIC_HTTP)


def aquatic(name: str, protocol: str, binary: Path, settings: str, io_uring: str = "") -> Rival:
    """One of aquatic's programs."""

    def command(folder: Path, port: int) -> list[str]:
        file = folder / f"{name}.toml"
        file.write_text(settings.format(port=port, peers=PEERS, io_uring=io_uring))
        return [str(binary), "-c", str(file)]

    return Rival(name, AQUATIC, (protocol,), command)


def bittorrent_tracker(kept: Path) -> Rival:
    """WebTorrent's tracker, of Node."""
    folder = kept / f"bittorrent-tracker-{BITTORRENT_TRACKER}"
    package = folder / "node_modules" / "bittorrent-tracker" / "package.json"
    if not package.exists():
        need("npm")
        asked = ["npm", "install", "--prefix", str(folder), "--omit=optional", "--ignore-scripts", "--no-audit"]
        install(kept, "bittorrent-tracker", [*asked, "--no-fund", f"bittorrent-tracker@{BITTORRENT_TRACKER}"])
    need("node")
    main = folder / "main.mjs"
    main.write_text(BITTORRENT_TRACKER_MAIN)
    version = json.loads(package.read_text())["version"]
    return Rival("bittorrent-tracker", version, ("udp", "http"), lambda _, port: ["node", str(main), str(port)])


MAKERS: dict[str, Callable[[Path], Rival]] = {
    "opentracker": opentracker,
    "aquatic-uring": aquatic_uring,
    "aquatic-mio": aquatic_mio,
    "aquatic-http": aquatic_http,
    "bittorrent-tracker": bittorrent_tracker,
}


def cargo_install(kept: Path, crate: str) -> Path:
    """The binary of one of aquatic's crates. Raises MissingError."""
    root = kept / f"{crate}-{AQUATIC}"
    binary = root / "bin" / crate
    if not binary.exists():
        need("cargo")
        asked = ["cargo", "install", crate, "--version", AQUATIC, "--locked", "--no-default-features", "--features"]
        places = ["--root", str(root), "--target-dir", str(kept / "build")]
        install(kept, crate, [*asked, AQUATIC_FEATURES[crate], *places], AQUATIC_BUILD)
    return binary


def need(command: str) -> None:
    """Raises MissingError if there is no such command."""
    if shutil.which(command) is None:
        raise MissingError(f"no command {command} to install or run it with")


FAILED: dict[str, str] = {}  # why, by name: what failed is not tried twice in a run


def install(kept: Path, name: str, command: list[str], env: dict[str, str] | None = None) -> None:
    """Run an installer, whose output is kept. Raises MissingError with what it said of an error."""
    if name in FAILED:
        raise MissingError(FAILED[name])
    kept.mkdir(parents=True, exist_ok=True)
    print(f"installing {name} into {kept}, once; this may take minutes", flush=True)
    log = kept / f"{name}.log"
    with log.open("wb") as file:
        told = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": subprocess.STDOUT}
        status = subprocess.run(command, env=os.environ | (env or {}), check=False, **told).returncode  # type: ignore[call-overload]
    if status:
        FAILED[name] = f"{reason(log.read_text(errors='replace'))} (more in {log})"
        raise MissingError(FAILED[name])


def reason(text: str) -> str:
    """The line of an installer's output that says why it failed: the first that begins with `error`, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it failed without a word"]
    return next((line for line in lines if re.match(r"(npm )?err(or)?\b", line, re.IGNORECASE)), lines[-1])
