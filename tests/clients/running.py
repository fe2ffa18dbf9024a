"""BitTorrent clients as processes, bound to loopback addresses, that learn of others from the tracker only.

                 UDP over IPv4   UDP over IPv6   HTTP over IPv4 and IPv6
aria2            yes             no              yes
transmission     yes             no              yes
libtorrent       yes             yes             yes

Over UDP aria2 resolves the names of trackers to IPv4 addresses only, and Transmission opens an IPv6 socket only on
a machine with a global IPv6 address.

Transmission is told of loopback peers like anybody, but connects to none; others must connect to it. So two of them
cannot meet here. It asks HTTP trackers from the IPv4 address that it is bound to, so for IPv6 it is bound to none.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ports import free_port


class Client:
    """A client that seeds the file of a torrent if it has it, or else downloads it. A context manager."""

    connects = True  # to loopback addresses
    install = ""  # the line that does

    def __init__(self, torrent, folder, host):
        self.torrent = torrent
        self.folder = folder
        self.host = host
        self.ipv6 = ":" in host
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
        ipv6 = "--disable-ipv6=false" if self.ipv6 else "--disable-ipv6=true"
        return [
            "aria2c", "--no-conf", "--enable-dht=true", "--enable-dht6=false", ipv6,
            "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--check-integrity=true", "--seed-ratio=0.0",
            "--file-allocation=none", f"--interface={self.host}", f"--listen-port={port}", f"--dht-listen-port={port}",
            f"--dht-file-path={self.folder / 'dht.dat'}", f"--dir={self.folder}", str(self.metainfo),
        ]  # fmt: skip


class Transmission(Client):
    connects = False
    install = "sudo apt-get install -y transmission-daemon && sudo systemctl disable --now transmission-daemon"

    def __init__(self, torrent, folder, host):
        super().__init__(torrent, folder, host)
        self.rpc_port = free_port("127.0.0.1")

    def command(self):
        settings = {
            "bind-address-ipv4": "0.0.0.0" if self.ipv6 else self.host,
            "bind-address-ipv6": "::1",
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "utp-enabled": False,
            "port-forwarding-enabled": False,
            "rpc-bind-address": "127.0.0.1",
            "rpc-port": self.rpc_port,
            "peer-port": free_port(self.host),
            "download-dir": str(self.folder),
            "watch-dir": str(self.metainfo.parent),
            "watch-dir-enabled": True,
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        return ["transmission-daemon", "--foreground", "--config-dir", str(self.folder)]

    def stop(self):
        """When it ends it says goodbye over UDP only; told to stop a torrent it does over HTTP too."""
        url = f"http://127.0.0.1:{self.rpc_port}/transmission/rpc"
        body = json.dumps({"method": "torrent-stop"}).encode()
        try:
            urllib.request.urlopen(url, body, timeout=20)
            raise AssertionError("a request without a session id was taken")
        except urllib.error.HTTPError as refusal:  # with the id that is to be told
            with refusal:
                headers = {"X-Transmission-Session-Id": refusal.headers["X-Transmission-Session-Id"]}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
            assert json.load(answer)["result"] == "success"


class Libtorrent(Client):
    install = "make .venv/.testable"

    def command(self):
        if importlib.util.find_spec("libtorrent") is None:
            self.is_missing("libtorrent")
        script = Path(__file__).with_name("libtorrent_client.py")
        address = f"[{self.host}]" if self.ipv6 else self.host
        return [sys.executable, "-P", str(script), str(self.metainfo), str(self.folder), address]
