"""A cluster that lives through a plan: its processes, its files, its faults; and what must be true in the end."""

import copy
from functools import cache
from types import SimpleNamespace

import msgspec
from actors import FAREWELL, Gateway, Shard
from announcing import Clients
from world import World

from common import config, frames
from common.counters import EXPIRED
from common.topology import Topology
from gateway.siphash import siphash
from shard.copies import Timing

KEY = bytes(range(16))
SLICES = 8
# A tenth of the real ones or less, but for those that are bound to pings: a run is as long as its pings are many.
TIMING = Timing(
    settle=1000,
    soon=1500,
    again=10_000,
    leaving=1500,
    asked=10_000,
    patience=2000,
    missed=11_000,
    quiet=3000,
    confirmed=5000,
)
REST = 24_000  # ms without fault after which all is as it should be: T of design.md, shortened likewise
TORRENTS, PEERS = 12, 8


@cache
def settings(lifetime):
    """What a shard's worker takes of a configuration, with a lifetime in seconds that none would have."""
    limits = SimpleNamespace(new_swarms=65_535, entries=10_000_000)
    return SimpleNamespace(slices=SLICES, interval=min(lifetime, 1800), lifetime=lifetime, limits=limits)


@cache
def topology_of(weights, replicas):
    """Shards and their weights, each on a node of its own."""
    shards = [
        {"name": name, "node": f"node-{name}", "link": f"tcp://127.0.0.1:{7000 + at}", "weight": weight}
        for at, (name, weight) in enumerate(weights)
    ]
    nodes = [{"name": shard["node"]} for shard in shards]
    gateways = [{"name": "gateway1", "node": nodes[0]["name"]}]
    parts = {"nodes": nodes, "shards": shards, "gateways": gateways, "insecure": True}
    return Topology(config.read({"slices": SLICES, "replicas": replicas, **parts}), KEY)


class Cluster:
    """Runs a plan: see plans.py."""

    def __init__(self, plan, timing=TIMING):
        self.plan = plan
        self.timing = timing
        self.world = World(plan.seed)
        self.bound = 0  # who was acknowledged before may be lost: by a crash, say
        self.slack = 0  # ms of life that peers gained while a process stood still
        self.last_fault = -REST  # when the last fault ended or the last edit reached somebody
        self.open_faults = 0
        self.faulty = False  # whether there ever was one
        self.versions = [topology_of(plan.weights, plan.replicas)]
        self.files = {}  # by process: the number of the version that its node has
        self.saved = {}  # by shard: a snapshot of some time ago
        self.disk = {}  # by shard: what it finds when it starts
        self.clients = Clients(self.world, self, TORRENTS, PEERS, 1000 * plan.lifetime)
        self.skews = {}
        for name in [*self.versions[0].shards, *plan.gateways]:
            self.files[name] = 0
            self.world.after(self.world.random.randint(0, 800), self.start, name)
        for at, name, *arguments in plan.events:
            self.world.at(at, getattr(self, name), *arguments)

    def run(self):
        """Live through the plan; what was broken, nothing if all is well."""
        self.world.run(self.plan.end)
        if not self.world.violations:
            self.check_end()
        return self.world.violations

    # Processes and files

    def version_of(self, name):
        number = self.files[name]
        topology = copy.copy(self.versions[number])
        topology.version = number + 1
        topology.config = msgspec.structs.replace(topology.config, version=number + 1)
        return topology

    def start(self, name):
        """Start a process with the file that its node has, and what it finds there."""
        if name in self.world.processes or name not in self.files:
            return
        topology = self.version_of(name)
        skew = self.skews.setdefault(name, self.world.random.randint(0, 10) * 3_600_000)
        if name in self.plan.gateways:
            Gateway(self.world, name, skew, topology, KEY, self.clients.answered)
        elif name in topology.in_file:
            Shard(
                self.world, name, skew, topology, settings(self.plan.lifetime), self.timing, self.disk.pop(name, None)
            )
        else:
            self.bound = self.world.now  # it was ended while it handed over what it held, and does not come back

    def gateway(self, name):
        """The gateway of this name, or another if it does not run."""
        running = [self.world.processes[each] for each in self.plan.gateways if each in self.world.processes]
        chosen = self.world.processes.get(name)
        return chosen or (running[0] if running else None)

    def shards(self):
        return {name: one for name, one in self.world.processes.items() if isinstance(one, Shard)}

    def edit(self, weights, replicas, arrivals, is_rollback=False):
        """Another version of the file: when it reaches each process, in ms from now."""
        self.world.counts["edit"] += 1
        self.world.counts["edit that takes another back"] += is_rollback
        before = self.versions[-1]
        after = topology_of(weights, replicas)
        self.world.counts["edit that adds a shard"] += len(set(after.shards) - set(before.shards)) > 0
        self.world.counts["edit that drains a shard"] += any(not weight for _, weight in weights)
        self.world.counts["edit that changes replicas"] += before.ring.members != after.ring.members
        self.versions.append(after)
        self.begin_fault()
        for name in sorted({*self.files, *(name for version in self.versions for name in version.in_file)}):
            self.world.after(arrivals.get(name, 0), self.take_up, name, len(self.versions) - 1)
        self.world.after(max([0, *arrivals.values()]), self.end_fault)

    def edit_away(self, arrivals):
        """Take shards that hold nothing out of the file."""
        last = self.versions[-1]
        held = {name for name, shard in self.shards().items() if shard.machine.copies.slices}
        own = {name for name in last.shards if last.ring.held_by(last.shards.index(name))}
        idle = set(last.shards) - held - own
        if not idle:
            return
        self.world.counts["edit that removes a shard"] += 1
        weights = tuple((name, weight) for name, weight in self.plan.final_weights if name not in idle)
        self.edit(weights, self.plan.final_replicas, arrivals)

    def take_up(self, name, number):
        """A node's file is another."""
        process = self.world.processes.get(name)
        if process is not None and process.paused:
            self.world.after(100, self.take_up, name, number)
            return
        before = self.files.get(name, -1)
        if before >= number:
            return
        self.files[name] = number
        topology = self.version_of(name)
        had_it = before >= 0 and name in self.versions[before].in_file
        if process is not None:
            process.configure(topology)
        elif name in topology.in_file and not had_it:
            self.start(name)
        elif had_it and name not in topology.in_file:
            self.bound = self.world.now  # what is down, and then not in the file any longer, does not come back

    # Announces and faults

    def announce(self, *arguments):
        self.clients.announce(*arguments)

    def burst(self, gateway, torrent, many):
        """Many announces at once, of the same few peers: more than the window has room for."""
        self.world.counts["burst"] += 1
        for _ in range(many):
            self.clients.announce(gateway, torrent, self.world.random.randrange(PEERS))

    def begin_fault(self):
        self.open_faults += 1
        self.faulty = True

    def end_fault(self):
        self.open_faults -= 1
        self.last_fault = self.world.now

    def is_calm(self):
        """Whether there is no fault, and has not been for as long as all needs to be as it should."""
        return not self.open_faults and self.world.now - self.last_fault >= REST

    def for_a_while(self, duration):
        self.begin_fault()
        self.world.after(duration, self.end_fault)

    def cut(self, one, other, duration, both):
        self.world.counts["cut both ways" if both else "cut one way"] += 1
        self.for_a_while(duration)
        for way in ((one, other), (other, one))[: 2 if both else 1]:
            self.world.cut(*way)
            self.world.after(duration, self.world.heal, *way)

    def reset(self, one, other):
        self.for_a_while(0)
        self.world.reset(one, other)

    def slow(self, one, other, delay, duration):
        self.world.counts["slow way"] += 1
        self.for_a_while(duration + delay)
        self.world.slow[one, other] += delay
        self.world.after(duration, self.world.slow.subtract, {(one, other): delay})

    def pause(self, name, duration):
        process = self.world.processes.get(name)
        if process is None:
            return
        self.slack += duration
        self.for_a_while(duration)
        process.pause()
        self.world.after(duration, process.resume)

    def save(self, name):
        """A snapshot, as a shard writes one now and then."""
        process = self.world.processes.get(name)
        if isinstance(process, Shard) and not process.paused:
            self.saved[name] = process.save()

    def crash(self, name, duration, with_snapshot, is_loss=True):
        """Kill a process; another starts with an old snapshot, or nothing. is_loss: acknowledged peers may be gone."""
        process = self.world.processes.get(name)
        if process is None:
            return
        is_shard = isinstance(process, Shard)
        self.world.counts["crash of a shard" if is_shard else "crash of a gateway"] += 1
        if is_shard and is_loss:
            self.bound = self.world.now
        self.for_a_while(duration)
        process.end()
        self.disk[name] = self.saved.get(name) if with_snapshot else None
        self.world.after(duration, self.start, name)

    def stop(self, name, duration):
        """End a process in order; another starts with what it saved."""
        process = self.world.processes.get(name)
        if process is None or process.paused:
            return
        self.world.counts["clean stop"] += 1
        self.for_a_while(FAREWELL + duration)
        process.farewell()
        self.world.after(FAREWELL, self.stopped, process, duration)

    def stopped(self, process, duration):
        if not process.runs:
            return
        if isinstance(process, Shard):
            self.disk[process.name] = process.save()
        process.end()
        self.world.after(duration, self.start, process.name)

    # What must be true in the end

    def check_end(self):
        """After a time without fault: full where it should be, none elsewhere, no peer lost, owners are asked."""
        world = self.world
        last = self.versions[-1]
        for name in last.shards:
            if name not in world.processes:
                world.broken("it runs again", name)
                return
        self.check_states(last)
        self.check_peers(last)
        self.check_gateways(last)
        self.count()

    def check_states(self, last):
        for name, shard in self.shards().items():
            if name not in last.in_file:
                self.world.broken("after T a shard that the file lacks has ended", name)
                return
            wanted = set(last.ring.held_by(last.shards.index(name)))
            for slice_id in range(SLICES):
                state = shard.store.state_of(slice_id)
                right = frames.STATE_FULL if slice_id in wanted else frames.STATE_NONE
                if state != right:
                    self.world.broken("after T: S full, all else none", f"{name}, slice {slice_id} is {state}")
                    return

    def check_peers(self, last):
        """Every copy has every acknowledged peer."""
        must = self.clients.acknowledged_since(self.bound)
        self.world.counts["peer that must not be lost"] += len(must)
        held = {}
        for (info_hash, endpoint), peer in must.items():
            slice_id = siphash(KEY, info_hash) & (SLICES - 1)
            for at in last.ring.members_of(slice_id):
                name = last.shards[at]
                if (name, slice_id) not in held:
                    held[name, slice_id] = self.world.processes[name].peers_of(slice_id)
                if (info_hash, endpoint) not in held[name, slice_id]:
                    self.world.broken("no acknowledged peer is lost", f"{peer}, slice {slice_id}, at {name}")
                    return

    def check_gateways(self, last):
        for name in self.plan.gateways:
            table = self.world.processes[name].machine.shards.table.tolist()
            wanted = [last.ring.owner(slice_id) for slice_id in range(SLICES)]
            if table != wanted:
                self.world.broken("after T gateways ask the owner", f"{name}: {table}, not {wanted}")

    def count(self):
        """What the processes that run counted; those that ended took theirs along."""
        counts = self.world.counts
        for name, process in self.world.processes.items():
            if name in self.plan.gateways:
                links = process.machine.shards.links
                counts["announce shed"] += sum(link.shed for link in process.machine.remote.values())
                counts["copy without room"] += process.router.records.uncopied
                counts["late pong"] += sum(link.late for link in links)
                counts["reply lost"] += sum(link.lost for link in links)
                for reason in ("other_boot", "too_old"):
                    counts[f"reply not taken: {reason}"] += process.machine.shards.dropped[reason]
                continue
            copies = process.machine.copies
            for kind in ("pulls", "empty", "chunks", "merged", "dropped"):
                counts[f"copies: {kind}"] += copies.counts[kind]
            counts["pull begun again"] += sum(source.restarts for source in copies.sources.values())
            for reason in ("other_boot", "too_old"):
                counts[f"frame not taken: {reason}"] += process.machine.dropped[reason]
            counts["record for a slice of which there was nothing"] += process.store.arrivals
            counts["peer expired"] += process.store.counters()[EXPIRED]
