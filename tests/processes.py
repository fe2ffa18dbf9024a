"""A cluster of gateways and shards as processes of their own, for tests: started, stopped, killed, paused by name.

    with Cluster(tmp_path, gateways=2, shards=3, transport="curve") as cluster:
        client = Client(cluster.gateway_address("gateway1"))
        cluster.kill("shard2")
        cluster.start("shard2")

Every process is waited for until it prints where it is reached. At the end all are ended, by their pids.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

from click.testing import CliRunner
from ports import free_port, free_ports
from trackers import PATIENCE, get, parse_metrics

from cluster.__main__ import main
from common import keys

COMMAND = [sys.executable, "-P", "-m"]
START = 60.0  # seconds that a process may take to start, on a busy machine


class Cluster:
    """Gateways `gateway1`, ... and shards `shard1`, ... on loopback; they are in the nodes `vps1`, ... in turn.

    transport: ipc, tcp (in clear) or curve. nodes: several need tcp or curve. settings: of the configuration, beside
    what is made here. absent: processes that the file names, but nobody starts yet.

    Each node has a file (`file_of`) and with curve a directory of keys (`keys_of`) of its own, with its own secret.
    All files mean the same cluster; they differ in `keys`, and in `admin`, as all nodes are on one machine here.
    """

    def __init__(self, directory, gateways=2, shards=3, transport="ipc", nodes=1, absent=(), **settings):
        assert transport in ("ipc", "tcp", "curve")
        self.directory = directory
        self.transport = transport
        self.nodes = [f"vps{number}" for number in range(1, nodes + 1)]
        self.gateways = [f"gateway{number}" for number in range(1, gateways + 1)]
        self.shards = [f"shard{number}" for number in range(1, shards + 1)]
        self.names = [*self.shards, *self.gateways]
        self.processes = {}
        self.absent = absent
        self.public = self._make_keys()
        self.document = self._document() | settings
        ports = free_ports(len(self.names))
        self.admin = {}  # by name
        for node in self.nodes:
            members = [name for name in (*self.gateways, *self.shards) if self.node_of(name) == node]
            base = ports[0]
            self.admin |= {name: f"127.0.0.1:{ports.pop(0)}" for name in members}
            self._write(node, {"admin": f"127.0.0.1:{base}"})

    def __enter__(self):
        try:
            for kind in (self.shards, self.gateways):  # so gateways find their shards
                present = [name for name in kind if name not in self.absent]
                for name in present:
                    self._spawn(name)
                for name in present:
                    self._wait_for_line(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    # Processes

    def start(self, name):
        """Start a process that is not running, and wait until it says where it is reached."""
        self._spawn(name)
        self._wait_for_line(name)

    def stop(self, name):
        """End a process in order (SIGTERM); its exit status."""
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        return self._gone(name, process.wait(PATIENCE))

    def kill(self, name):
        """End a process at once (SIGKILL)."""
        process = self.processes[name]
        process.kill()
        return self._gone(name, process.wait(PATIENCE))

    def pause(self, name):
        """Let a process stand still (SIGSTOP); returns once it does."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self, name):
        """Let a paused process go on."""
        os.kill(self.pid(name), signal.SIGCONT)

    def hang_up(self, name):
        """SIGHUP: have a process read again what may have changed."""
        os.kill(self.pid(name), signal.SIGHUP)

    def pid(self, name):
        return self.processes[name].pid

    def close(self):
        """End all at once: to stop in order takes shards a second."""
        for process in self.processes.values():
            process.kill()
        for name, process in list(self.processes.items()):
            self._gone(name, process.wait())

    # Where things are

    def node_of(self, name):
        kind = self.shards if name in self.shards else self.gateways
        return self.nodes[kind.index(name) % len(self.nodes)]

    def file_of(self, node="vps1"):
        """A node's configuration file."""
        return self.directory / f"{node}.yaml"

    def keys_of(self, node="vps1"):
        """A node's directory of key files."""
        return self.directory / f"keys-{node}"

    @property
    def file(self):
        """The configuration file of the first node."""
        return self.file_of(self.nodes[0])

    def rewrite(self, node="vps1", **settings):
        """Change settings in a node's file; processes started afterwards have them."""
        self._write(node, json.loads(self.file_of(node).read_text()) | settings)

    def gateway_address(self, name):
        """Where clients ask a gateway, over UDP and HTTP."""
        host, _, port = self.document["gateways"][self.gateways.index(name)]["listen"][0].rpartition(":")
        return host.strip("[]"), int(port)

    def log(self, name):
        """All that a process has written to standard error in its lives so far."""
        path = self._log_path(name)
        return path.read_text() if path.exists() else ""

    def get(self, name, path):
        """Status and body at a process's admin address."""
        return get(self.admin[name], path)

    def metrics(self, name):
        """All numbers of a process: {'name{label="value"}': number}."""
        _, text = self.get(name, "/metrics")
        return parse_metrics(text)

    # Making it

    def _make_keys(self):
        """Files for all nodes; public keys by node, none unless links are encrypted."""
        first = self.keys_of(self.nodes[0])
        keys.make(first)
        for node in self.nodes[1:]:
            keys.make_directory(self.keys_of(node))
            for name in (keys.CLUSTER, keys.CONNECTION_ID):
                shutil.copy2(first / name, self.keys_of(node))
        if self.transport != "curve":
            return dict.fromkeys(self.nodes)
        return {node: keys.make_node_key(self.keys_of(node), node).public for node in self.nodes}

    def _document(self):
        return {
            "data": str(self.directory / "data"),
            "nodes": [{"name": node, "key": self.public[node]} for node in self.nodes],
            "gateways": [
                {"name": name, "node": self.node_of(name), "listen": [f"127.0.0.1:{free_port()}"]}
                for name in self.gateways
            ],
            "shards": [
                {"name": name, "node": self.node_of(name), "memory": "16 MiB", "link": self._link()}
                for name in self.shards
            ],
            "log": {"level": "warning", "figures": 0},
        }

    def _link(self):
        return None if self.transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"

    def _write(self, node, settings):
        document = {**self.document, "keys": str(self.keys_of(node)), **settings}
        self.file_of(node).write_text(json.dumps(document))

    def _log_path(self, name):
        return self.directory / f"{name}.log"

    def _spawn(self, name):
        assert name not in self.processes
        module = "shard" if name in self.shards else "gateway"
        command = [*COMMAND, module, "--config", str(self.file_of(self.node_of(name))), "--name", name]
        with self._log_path(name).open("a") as log:
            self.processes[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)

    def _wait_for_line(self, name):
        """Wait until a process prints where it is reached."""
        process = self.processes[name]
        if not select.select([process.stdout], [], [], START)[0]:
            raise AssertionError(f"{name} says nothing: {self.log(name)}")
        if not os.read(process.stdout.fileno(), 4096):
            raise AssertionError(f"{name} ended with {process.wait(PATIENCE)}: {self.log(name)}")

    def _gone(self, name, status):
        self.processes.pop(name).stdout.close()
        return status


def until(condition, patience=START):
    """What a condition yields once that is true; it is looked at again and again."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} stays {found!r}"
        time.sleep(0.05)
    return found


# The operator's commands


def shoal(*arguments, **options):
    """A command that has ended."""
    command = [*COMMAND, "cluster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def shoal_json(*arguments):
    """Exit status of a command, and the JSON document that it prints. In this process, as many look again and again."""
    ended = CliRunner().invoke(main, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ended.stderr == ""
    return ended.exit_code, json.loads(ended.stdout)


def shoal_refuses(*arguments, **options):
    """The one line of an operator's mistake."""
    ended = shoal(*arguments, **options)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("shoal: ")
    return line
