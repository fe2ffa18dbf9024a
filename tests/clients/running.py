"""BitTorrent clients as processes, bound to loopback addresses, that learn of others from the tracker only.

                 UDP over IPv4   UDP over IPv6
aria2            yes             no: it resolves the names of UDP trackers to IPv4 addresses only
transmission     yes             no: it opens an IPv6 socket only on a machine with a global IPv6 address
libtorrent       yes             yes

Transmission is told of loopback peers like anybody, but connects to none; others must connect to it. So two of them
cannot meet here.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


class Client:
    """A client that seeds the file of a torrent if it has it, or else downloads it. A context manager."""

    connects = True  # to loopback addresses
    install = ""  # the line that does

    def __init__(self, torrent, folder, host):
        self.torrent = torrent
        self.folder = folder
        self.host = host
        self.metainfo = folder / "metainfo" / "a.torrent"
        self.metainfo.parent.mkdir(parents=True)
        self.metainfo.write_bytes(torrent.metainfo)
        self.file = folder / torrent.name
        self.log = folder / "log"
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def command(self):
        """How it is run."""
        raise NotImplementedError

    def start(self, complete):
        """Run it, with or without the file."""
        if complete:
            self.file.write_bytes(self.torrent.data)
        environment = {**os.environ, "HOME": str(self.folder)}
        with self.log.open("wb") as log:
            try:
                self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=environment)
            except FileNotFoundError as error:
                self.is_missing(error.filename)

    def is_missing(self, what):
        pytest.fail(f"{what} is missing; this installs it: {self.install}", pytrace=False)

    def has_file(self):
        """Whether the file is all there."""
        assert self.process.poll() is None, self.log.read_text()
        return self.torrent.is_in(self.file)

    def stop(self):
        """Let it say goodbye to the tracker."""
        self.process.send_signal(signal.SIGINT)  # at SIGTERM aria2 leaves without a word
        self.process.wait(20)


class Aria2(Client):
    install = "sudo apt-get install -y aria2"

    def command(self):
        # Its UDP trackers need its DHT, which is given no node, and which private torrents do not use.
        port = free_port(self.host)
        return [
            "aria2c", "--no-conf", "--enable-dht=true", "--enable-dht6=false", "--disable-ipv6=true",
            "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--check-integrity=true", "--seed-ratio=0.0",
            "--file-allocation=none", f"--interface={self.host}", f"--listen-port={port}", f"--dht-listen-port={port}",
            f"--dht-file-path={self.folder / 'dht.dat'}", f"--dir={self.folder}", str(self.metainfo),
        ]  # fmt: skip


class Transmission(Client):
    connects = False
    install = "sudo apt-get install -y transmission-daemon && sudo systemctl disable --now transmission-daemon"

    def command(self):
        settings = {
            "bind-address-ipv4": self.host,
            "bind-address-ipv6": "::1",
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "utp-enabled": False,
            "port-forwarding-enabled": False,
            "rpc-enabled": False,
            "peer-port": free_port(self.host),
            "download-dir": str(self.folder),
            "watch-dir": str(self.metainfo.parent),
            "watch-dir-enabled": True,
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        return ["transmission-daemon", "--foreground", "--config-dir", str(self.folder)]


class Libtorrent(Client):
    install = "make .venv/.testable"

    def command(self):
        if importlib.util.find_spec("libtorrent") is None:
            self.is_missing("libtorrent")
        script = Path(__file__).with_name("libtorrent_client.py")
        return [sys.executable, "-P", str(script), str(self.metainfo), str(self.folder), self.host]


def free_port(host):
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket(type=socket.SOCK_STREAM) as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            stream.bind((host, 0))
            try:
                datagrams.bind(stream.getsockname())
            except OSError:
                continue
            return stream.getsockname()[1]
