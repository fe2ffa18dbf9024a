"""A cluster of `shoal up` on machines of their own, whose links go through a relay, and a client with a checked load.

    with Rig(directory, shards=2) as rig:
        rig.edit(shards=3)
        for node in NODES:
            rig.write(node)
            time.sleep(10)
        rig.until_settled()

vps1, vps2, vps3 have a gateway each, and the shards that the file gives them; all have the very same file. Where
processes are told to reach a shard is an address that every machine has for itself: on the shard's own machine the
shard listens there too, on all others the relay does. The client reaches all machines.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from growth.load import Load
from growth.relay import Line, Relay
from namespaces import Machine, Switch, demand
from processes import until
from trackers import PATIENCE, get, parse_metrics

from cluster import asking
from common import config, control, frames, keys
from common.control import HEADER
from common.topology import Topology
from loadtests.clusters import descendants

NODES = {"vps1": "192.0.2.1", "vps2": "198.51.100.1", "vps3": "203.0.113.1"}
SHARDS = {f"shard{number}": node for number, node in enumerate(NODES, 1)}
GATEWAYS = {f"gateway{number}": node for number, node in enumerate(NODES, 1)}
CLIENTS = [f"45.83.20.{number}" for number in range(1, 13)]  # public: others are not listed
PORT = 6969
FIRST_LINK = 7100
SLICES = 1024
HOP = 0.003  # seconds that bytes take from machine to machine, one way
LOOK = 0.3  # seconds between two looks at all shards


class Rig:
    """The machines, the processes on them, and the load."""

    def __init__(self, directory, shards, replicas=0):
        demand()
        self.directory = directory
        self.stack = ExitStack()
        self.machines = {}  # by node
        self.running = {}  # `shoal up` by node
        self.signalled = {}  # pids by name
        self.public = self._make_keys()
        self.version = 1
        self.file = self.document(shards, replicas)

    def __enter__(self):
        with ExitStack() as stack:
            switch = stack.enter_context(Switch())
            self.machines = {
                name: stack.enter_context(Machine(name, addresses, self.directory, switch))
                for name, addresses in {
                    **{node: [address] for node, address in NODES.items()},
                    "client": CLIENTS,
                }.items()
            }
            self.client = self.machines.pop("client")
            for machine in self.machines.values():
                for number in range(1, len(SHARDS) + 1):
                    machine.run(f"ip address add {virtual(number)}/32 dev lo")
            self.relay = stack.enter_context(Relay(self._lines()))
            self.relay.delay(HOP)
            stack.callback(self._leave_all)
            for node in NODES:
                self.write(node)
                self.up(node)
            with self.client.network():
                self.load = stack.enter_context(Load())
            self.until_settled()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    # The file

    def document(self, shards, replicas=0):
        """A configuration with so many shards."""
        return {
            "version": self.version,
            "slices": SLICES,
            "data": "/var/lib/shoal",
            "replicas": replicas,
            "nodes": [{"name": node, "key": self.public[node]} for node in NODES],
            "gateways": [
                {"name": name, "node": node, "listen": [f"0.0.0.0:{PORT}"]} for name, node in GATEWAYS.items()
            ],
            "shards": [
                self._shard(number, f"tcp://{virtual(number)}", "tcp://0.0.0.0") for number in range(1, shards + 1)
            ],
            "limits": {"exempt": ["127.0.0.0/8", "45.83.20.0/24"]},
            "log": {"figures": 0},
        }

    def write(self, node):
        """Put the file on a node, in one step."""
        path = self.path_of(node)
        path.with_suffix(".new").write_text(json.dumps(self.file, indent=1))
        os.replace(path.with_suffix(".new"), path)

    def path_of(self, node):
        return self.directory / "files" / node / "cluster.yaml"

    def edit(self, shards, replicas=0):
        """Another version of the file, which `write` gives to each node."""
        self.version += 1
        self.file = self.document(shards, replicas)

    def _shard(self, number, link, bind):
        name = f"shard{number}"
        port = FIRST_LINK + number
        place = {"link": f"{link}:{port}", "bind": bind and f"{bind}:{port}"}
        return {"name": name, "node": SHARDS[name], "memory": "256 MiB", **place}

    # Processes

    def up(self, node):
        """Start `shoal up` on a node."""
        command = f"exec {sys.executable} -P -m cluster up --config {self.path_of(node)} --node {node}"
        with (self.directory / f"{node}.log").open("a") as log:
            self.running[node] = subprocess.Popen(
                self.machines[node].command(command), stdout=log, stderr=subprocess.STDOUT
            )

    def pid(self, name):
        """Of a gateway or a shard, 0 without one."""
        node = (SHARDS | GATEWAYS)[name]
        with suppress(FileNotFoundError):  # one of these processes has just ended
            for pid in descendants(self.running[node].pid):
                if f"\0--name\0{name}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
        return 0

    def signal(self, name, number):
        """Send a signal to a gateway or a shard."""
        self.signalled[name] = self.pid(name)
        os.kill(self.signalled[name], number)

    def until_replaced(self, name):
        """Wait until another process is there for one that was sent a signal; a gateway hears all shards then."""
        until(lambda: self.pid(name) not in (0, self.signalled[name]))
        if name in GATEWAYS:
            until(lambda: self._hears_all(name))

    def _hears_all(self, name):
        try:
            found = self.metrics(name)
        except OSError:
            return False
        return [found.get(f'shoal_link_heard{{shard="{each["name"]}"}}') for each in self.file["shards"]] == [
            1.0 for _ in self.file["shards"]
        ]

    def log(self, node):
        """All that was written there."""
        return (self.directory / f"{node}.log").read_text()

    def metrics(self, name):
        """The numbers of a process."""
        node = (SHARDS | GATEWAYS)[name]
        mine = [process for process in (*self.file["gateways"], *self.file["shards"]) if process["node"] == node]
        at = [process["name"] for process in mine].index(name)
        with self.machines[node].network():
            return parse_metrics(get(f"127.0.0.1:{6970 + at}", "/metrics")[1])

    def _leave_all(self):
        """What runs on a machine ends with it."""
        for process in self.running.values():
            process.kill()
            process.wait(PATIENCE)

    # What shards say

    def ask(self, timeout=2.0):
        """What each shard that runs says of itself and of its slices; None of one that is not heard."""
        running = [number for number, name in enumerate(SHARDS, 1) if self.pid(name)]
        if not running:
            return {}
        document = {
            **self.file,
            "keys": str(self.path_of("vps1").parent / "keys"),
            "replicas": 0,
            "shards": [self._shard(number, f"tcp://{list(NODES.values())[number - 1]}", None) for number in running],
        }
        wanted = config.read(document)
        talks = [Question() for _ in running]
        with self.client.network():
            asking.talk_to_shards(wanted, asking.key_of(wanted, "vps1"), talks, timeout)
        return {str(shard.name): talk.said for shard, talk in zip(wanted.shards, talks, strict=True)}

    def topology(self, document=None):
        """What a file means, or the present one."""
        return Topology(config.read(document or self.file), self.cluster_key)

    def slices_of(self, name, document=None):
        """The slices that a shard owns."""
        topology = self.topology(document)
        return set(topology.ring.slices_of(topology.shards.index(name))) if name in topology.shards else set()

    def unsettled(self, may_have_more=False):
        """What is not as the file has it, a line for each thing."""
        topology = self.topology()
        said = self.ask()
        lines = [f"{name} is not heard" for name in topology.shards if said.get(name) is None]
        for name, each in said.items():
            if each is None:
                continue
            members = topology.ring.held_by(topology.shards.index(name)) if name in topology.shards else []
            states = held(each, "state")
            lacking = [slice_id for slice_id in members if states.get(slice_id) != frames.STATE_FULL]
            beyond = set(states) - set(members)
            if lacking:
                lines.append(f"{name} lacks {len(lacking)} slices")
            if beyond and not may_have_more:
                lines.append(f"{name} has {len(beyond)} slices beyond its own")
            lines += self._apart(topology, name, each)
        return lines

    def _apart(self, topology, name, said):
        """Of what a shard has another view than the file."""
        if name not in topology.shards:
            return []
        known = {peer["name"] for peer in said["peers"] if peer["heard_ms"] < 2000}
        deaf = [link["shard"] for link in said["links"] if link["silent"] and link["shard"] in topology.shards]
        deaf += [gateway for gateway in GATEWAYS if gateway not in known]
        lines = [f"{name} does not hear {other}" for other in deaf]
        if said["config_version"] != self.version:
            lines.append(f"{name} has version {said['config_version']}")
        return lines

    def until_settled(self, patience=60.0, may_have_more=False):
        """Wait until every shard has what the file gives it, and nothing else; the seconds that it took."""
        began = time.monotonic()
        while lines := self.unsettled(may_have_more):
            assert time.monotonic() < began + patience, lines
            time.sleep(LOOK)
        return time.monotonic() - began

    def disagreements(self):
        """Slices of which members count other peers than the owner; nothing may change meanwhile."""
        found = {name: held(each, "torrents", "leechers", "seeders") for name, each in self.ask().items()}
        topology = self.topology()
        lines = []
        for slice_id in range(SLICES):
            members = [topology.shards[at] for at in topology.ring.members_of(slice_id)]
            counts = {name: found[name].get(slice_id) for name in members}
            if len(set(counts.values())) > 1:
                lines.append(f"slice {slice_id}: {counts}")
        return lines

    # The load

    def until_found(self, patience=0.0):
        """Wait until each gateway has all that was ever acknowledged, while nobody announces; what was asked for."""
        deadline = time.monotonic() + patience
        while (found := self.load.verify([[address, PORT] for address in NODES.values()], CLIENTS[0]))["wrong"]:
            if time.monotonic() > deadline:
                raise AssertionError(f"peers are lacking: {found}; copies that differ: {self.disagreements()}")
        return found

    # Making it

    def _make_keys(self):
        """Of each node, beside its file; the public ones by node."""
        first = self.path_of("vps1").parent / "keys"
        keys.make(first)
        self.cluster_key = keys.load_cluster(first)
        for node in NODES:
            directory = self.path_of(node).parent / "keys"
            if directory != first:
                keys.make_directory(directory)
                for name in (keys.CLUSTER, keys.CONNECTION_ID):
                    (directory / name).write_bytes((first / name).read_bytes())
                    (directory / name).chmod(0o600)
        return {node: keys.make_node_key(self.path_of(node).parent / "keys", node).public for node in NODES}

    def _lines(self):
        return [
            Line(node, shard, machine.pid, (virtual(number), FIRST_LINK + number), (NODES[home], FIRST_LINK + number))
            for node, machine in self.machines.items()
            for number, (shard, home) in enumerate(SHARDS.items(), 1)
            if home != node
        ]


class Question:
    """How is a shard, and each of its slices?"""

    def __init__(self):
        self.said = None

    @property
    def done(self):
        return self.said is not None

    def begin(self):
        return HEADER.pack(frames.VERSION, frames.STATUS, 1, 1, 0, 0)

    def hear(self, frame):
        assert control.header(frame).kind == frames.STATUS
        self.said = json.loads(bytes(frame[frames.HEADER :]))


def held(said, *fields):
    """What a shard says of its slices: a number each, or several."""
    columns = [said["held"][field] for field in fields]
    rows = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
    return dict(zip(said["held"]["slice"], rows, strict=True))


def virtual(number):
    """Where processes are told to reach a shard."""
    return f"10.77.0.{number}"
