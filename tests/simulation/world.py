"""A whole cluster in one process, in virtual time: the objects and kernels that processes run, and what joins them.

A `World` has a clock, processes and lines. Everything that happens is an event at a millisecond; what is random comes
from the seed alone, so that a run replays. A line is one connection of a process to a shard: frames keep their order,
wait while a way is cut (as TCP would have them wait), and are lost with the connection, or come to the successor of a
shard that died, as libzmq may deliver them.
"""

import heapq
from collections import Counter, deque
from random import Random

from common.link_state import WINDOW

QUEUED = 2 * WINDOW + 16  # frames of a way that may wait: see common/links.py
RECONNECT = 300  # ms to try again to connect
HOUR = 3_600_000


class World:
    """Virtual time in ms, and what happens at which. `counts`: how often each mechanism occurred."""

    def __init__(self, seed):
        self.now = 0
        self.random = Random(seed)
        self.events = []
        self.number = 0
        self.processes = {}  # those that run, by name
        self.cuts = Counter()  # ways (from, to) that are cut
        self.slow = Counter()  # ms that frames of a way take longer
        self.delays = (1, 40)  # ms
        self.kept = 0.5  # of connections to a shard that dies, those whose frames come to its successor
        self.lines = {}  # by (client, shard)
        self.counts = Counter()
        self.violations = []
        self.longest_queue = 0

    def at(self, when, call, *arguments):
        """Let something happen."""
        self.number += 1
        heapq.heappush(self.events, (when, self.number, call, arguments))

    def after(self, delay, call, *arguments):
        self.at(self.now + delay, call, *arguments)

    def run(self, until):
        """Let everything happen up to a time, or until a promise is broken."""
        events = self.events
        while events and events[0][0] <= until and not self.violations:
            self.now, _, call, arguments = heapq.heappop(events)
            call(*arguments)
        self.now = max(self.now, until)

    def broken(self, promise, what):
        """A promise was not kept."""
        self.violations.append(f"{self.now} ms: {promise}: {what}")

    # The network

    def is_open(self, one, other):
        return not self.cuts[one, other] and not self.cuts[other, one]

    def cut(self, one, other):
        """Nothing comes from one to the other any longer."""
        self.cuts[one, other] += 1

    def heal(self, one, other):
        self.cuts[one, other] -= 1
        for line in list(self.lines.values()):
            if {line.client.name, line.shard} == {one, other}:
                line.flow()

    def reset(self, one, other):
        """The connection between two breaks, with all that is on its way."""
        for key in ((one, other), (other, one)):
            if key in self.lines:
                self.counts["reset"] += 1
                self.lines[key].lose()


class Line:
    """A connection of a process to a shard; another, with another routing id, whenever it is made again."""

    def __init__(self, world, client, shard):
        self.world = world
        self.client = client
        self.shard = shard
        self.id = b""
        self.up = False
        self.waiting = {True: deque(), False: deque()}  # frames on their way: to the shard, and from it
        self.due = {True: 0, False: 0}  # when the last one comes
        self.number = 0
        self.trying = False
        self.connect()

    def connect(self):
        """Be up once the way is open and the shard runs; try again otherwise."""
        world = self.world
        self.trying = False
        if self.up or world.lines.get((self.client.name, self.shard)) is not self or not self.client.runs:
            return
        if self.shard in world.processes and world.is_open(self.client.name, self.shard):
            world.number += 1
            self.id = b"%08d" % world.number
            self.up = True
            for _ in range(len(self.waiting[True])):
                world.counts["delivered to a successor"] += 1
            self.flow()
        else:
            self.try_again()

    def try_again(self):
        if not self.trying:
            self.trying = True
            self.world.after(RECONNECT, self.connect)

    def lose(self, keep=False):
        """The connection is gone; `keep`: what is on its way to the shard waits for the next."""
        self.up = False
        self.number += 1
        self.waiting[False].clear()
        if not keep:
            self.waiting[True].clear()
        self.try_again()

    def send(self, frame, there=True):
        """Send a frame to the shard, or from it; whether somebody was there to take it."""
        if not self.up:
            return False
        waiting = self.waiting[there]
        waiting.append(frame)
        world = self.world
        world.longest_queue = max(world.longest_queue, len(waiting))
        if len(waiting) > QUEUED:
            world.broken("queues are bounded", f"{len(waiting)} frames between {self.client.name} and {self.shard}")
        self.schedule(there)
        return True

    def way(self, there):
        return (self.client.name, self.shard) if there else (self.shard, self.client.name)

    def schedule(self, there):
        """The frame that was put last will come."""
        world = self.world
        low, high = world.delays
        delay = low + int(world.random.random() * (1 + high - low)) + world.slow[self.way(there)]
        self.due[there] = max(self.due[there], world.now + delay)
        world.at(self.due[there], self.arrive, there, self.number)

    def flow(self):
        """What had to wait comes now."""
        if not self.up:
            self.try_again()
            return
        self.number += 1
        for there in (True, False):
            for _ in self.waiting[there]:
                self.schedule(there)

    def arrive(self, there, number):
        """The first frame of a way is there, unless it is cut or the connection is another."""
        world = self.world
        waiting = self.waiting[there]
        if number != self.number or not self.up or not waiting or world.cuts[self.way(there)]:
            return
        frame = waiting.popleft()
        target = world.processes.get(self.shard) if there else self.client
        if target is None or not target.runs:
            return
        if there:
            target.put("take", self, frame)
        else:
            target.put("hear", self, frame)


class Process:
    """What runs on the event loop of a process: it may stand still, and has a clock of its own, hours off others'."""

    TICK = 400  # ms: of links, as LinkSockets has it, but fewer

    def __init__(self, world, name, skew):
        self.world = world
        self.name = name
        self.skew = skew
        self.runs = True
        self.paused = 0
        self.inbox = deque()  # what waits while it stands still
        self.linked = {}  # for whom it has lines
        world.processes[name] = self
        world.after(world.random.randint(0, self.TICK), self.turn)

    @property
    def local(self):
        """Its own clock, ms."""
        return self.world.now + self.skew

    def seconds(self):
        return self.local / 1000

    def pause(self):
        self.paused += 1
        self.world.counts["pause"] += 1

    def resume(self):
        self.paused -= 1
        if not self.paused and self.runs:
            for item in [*self.inbox]:
                if not self.runs:
                    return
                self.handle(*item)
            self.inbox.clear()

    def put(self, kind, line, frame):
        """A frame came."""
        if self.paused:
            self.inbox.append((kind, line, frame))
        else:
            self.handle(kind, line, frame)

    def turn(self):
        """The periodic tasks."""
        if not self.runs:
            return
        self.world.after(self.TICK, self.turn)
        if not self.paused:
            self.tick()

    def link(self, states):
        """Have lines to these shards and no others; a new one to who is silent for long."""
        if states is self.linked:
            return
        self.linked = states
        world = self.world
        for name in states:
            if (self.name, name) not in world.lines:
                self.line_to(name)
        for key in [key for key in world.lines if key[0] == self.name and key[1] not in states]:
            del world.lines[key]

    def line_to(self, name):
        world = self.world
        world.lines.pop((self.name, name), None)
        line = Line.__new__(Line)
        world.lines[self.name, name] = line
        line.__init__(world, self, name)

    def reconnect(self, states):
        for name, state in states.items():
            if state.connection_due(self.local):
                self.world.counts["new connection"] += 1
                self.line_to(name)

    def send(self, name, frame):
        line = self.world.lines.get((self.name, name))
        return line is not None and line.send(bytes(frame))

    def end(self):
        """It is gone: its own connections, and those to it."""
        world = self.world
        self.runs = False
        del world.processes[self.name]
        for key in [key for key in world.lines if key[0] == self.name]:
            del world.lines[key]
        for line in [line for key, line in world.lines.items() if key[1] == self.name]:
            line.lose(keep=world.random.random() < world.kept)

    def tick(self):
        raise NotImplementedError

    def handle(self, kind, line, frame):
        raise NotImplementedError
