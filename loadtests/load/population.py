"""KERNEL: the swarms of a load, what their tracker was told, and whether it answers what it may.

Peers are numbered; peer n comes from source n // ports, with port first_port + n % ports, and belongs to one swarm for
ever. Of each is kept what the tracker may believe of it, a mask of ABSENT, LEECHER, SEEDER. An announce under way adds
what it says to the mask; its answer leaves nothing else. An announce without an answer may have been heard or not: its
mask keeps both.

For each swarm and family there is how many peers surely are, and how many may be, leechers or seeders. An answer
comes from a moment between its request and its arrival. Each change of a mask in that time moves those sums by one at
most, so an answer is held against the present sums with a doubt of as many as there were.
"""

import cython

u8 = cython.typedef(cython.uchar)
u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
i64 = cython.typedef(cython.longlong)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])

FAULTS = (
    "malformed", "error", "stranger", "own", "twice", "departed", "role", "few", "seeders", "leechers",
)  # fmt: skip
MALFORMED = cython.declare(u32, 1)  # not what BEP 15, or BEP 3 and 23, have
ERROR = cython.declare(u32, 2)  # an error in place of an answer
STRANGER = cython.declare(u32, 4)  # a peer that is not of the swarm
OWN = cython.declare(u32, 8)  # the asker itself
TWICE = cython.declare(u32, 16)  # a peer listed twice
DEPARTED = cython.declare(u32, 32)  # a peer that is gone, or never came
ROLE = cython.declare(u32, 64)  # a seeder told of a seeder
FEW = cython.declare(u32, 128)  # fewer peers than there surely are, or were asked for
SEEDERS = cython.declare(u32, 256)  # counts of what cannot be
LEECHERS = cython.declare(u32, 512)

ABSENT = cython.declare(u32, 1)
LEECHER = cython.declare(u32, 2)
SEEDER = cython.declare(u32, 4)
STATE = cython.declare(u32, 7)

# What is under way: the state that it leads to, and
EVENT = cython.declare(u32, 3)  # BEP 15's number, shifted
EVENT_SHIFT = cython.declare(u32, 3)
LEFT = cython.declare(u32, 32)  # something is left to download
FLYING = cython.declare(u32, 128)
NONE = cython.declare(u32, 0)
COMPLETED = cython.declare(u32, 1)
STARTED = cython.declare(u32, 2)
STOPPED = cython.declare(u32, 3)

# What is looked up of each listed peer is one word, as they come from anywhere: its torrent, and its mask above.
TORRENT = cython.declare(u32, 0xFF_FFFF)
MASK_SHIFT = cython.declare(u32, 24)
SEEN = cython.declare(size, 1024)  # places for the peers of an answer
MOST_SEEN = cython.declare(size, 512)

SUMS = cython.declare(size, 8)  # of a swarm: for IPv4, then IPv6: sure leechers, sure seeders, and those that may be
EXAMPLE = cython.declare(size, 5)
MOST_SOURCES = cython.declare(size, 128)
PLACES = cython.declare(size, 256)
ATTEMPTS = cython.declare(size, 64)
ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)

MIX_A = cython.declare(u64, 0xBF58_476D_1CE4_E5B9)
MIX_B = cython.declare(u64, 0x94D0_49BB_1331_11EB)
STAR = cython.declare(u64, 0x2545_F491_4F6C_DD1D)
GOLDEN = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
SPREAD = cython.declare(u64, 0x9E37_79B1)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A product or shift, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def mix(x: u64) -> u64:
    """SplitMix64's output function (Steele, Lea, Flood, OOPSLA 2014)."""
    x = wrap((x ^ (x >> 30)) * MIX_A)
    x = wrap((x ^ (x >> 27)) * MIX_B)
    return x ^ (x >> 31)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def divisor(a: size, b: size) -> size:
    """The greatest that two numbers have in common (Euclid)."""
    while b:
        a, b = b, a % b
    return a


@cython.cclass
class Population:
    """The swarms of one user.

    sizes: a buffer of "I", the peers of each torrent; together as many as sources * ports.
    addresses: 16 bytes a source, an IPv4 address in the first 4. families: a byte a source, 1 for IPv6.
    stride: coprime to the count of peers: peers of a swarm lie so far apart, so that each has many sources.
    seed: of what is drawn, and of the info-hashes. Raises ValueError.
    """

    def __init__(self, sizes, addresses, families, first_port: size, stride: size, seed: u64):
        self.torrents = len(sizes)
        self.sources = len(families)
        self.first_port = first_port
        self.peers = sum(sizes)
        if not 1 <= self.sources <= MOST_SOURCES or len(addresses) != 16 * self.sources:
            raise ValueError("1 to 128 sources, with an address of 16 bytes each")
        self.ports = self.peers // self.sources
        if not 1 <= self.torrents <= TORRENT + 1 or self.peers != self.ports * self.sources or self.peers < 1:
            raise ValueError("the swarms must have as many peers as the sources have ports")
        if not 2 <= first_port <= 65536 - self.ports:
            raise ValueError("ports are 2 to 65535")
        if stride < 1 or divisor(stride, self.peers) != 1:
            raise ValueError("the stride and the count of peers have a divisor in common")
        self.families = bytearray(families)
        self.addresses = bytearray(addresses)
        self.stride = stride % self.peers
        self.hot_peers = sizes[0]
        self.seed = seed
        self.random = mix(seed) | 1
        self.present = 0
        self.answer = 0
        self.strict = True
        self.rows = memoryview(bytearray(4 * self.peers)).cast("I")
        self.stamps = memoryview(bytearray(4 * self.peers)).cast("I")
        self.seen = memoryview(bytearray(8 * SEEN)).cast("Q")
        self.flights = bytearray(self.peers)
        self.counts = memoryview(bytearray(4 * SUMS * self.torrents)).cast("I")
        self.changes = memoryview(bytearray(4 * self.torrents)).cast("I")
        self.found = memoryview(bytearray(8 * 32)).cast("Q")
        self.examples = memoryview(bytearray(8 * 32 * EXAMPLE)).cast("q")
        self.set_mix(0.0, 0.3, 0.02, 0.01)
        self._settle(sizes)
        self._place()

    def _settle(self, sizes) -> None:
        """Give each peer its swarm."""
        slot: size = 0
        torrent: size
        peer: size
        n: size
        for torrent in range(self.torrents):
            for n in range(cython.cast(size, sizes[torrent])):
                peer = self._peer_at(slot)
                self.rows[peer] = cython.cast(u32, torrent) | ABSENT << MASK_SHIFT
                slot += 1

    def _place(self) -> None:
        """Make sources to be found by their addresses."""
        source: size
        at: size
        self.places = memoryview(bytearray(2 * PLACES)).cast("H")
        for source in range(self.sources):
            if self._find_source(self.addresses, 16 * source, self.families[source] != 0) >= 0:
                raise ValueError("a source is named twice")
            at = self._place_of(self.addresses, 16 * source, self.families[source] != 0)
            while self.places[at]:
                at = (at + 1) % PLACES
            self.places[at] = cython.cast(u16, source + 1)

    def set_mix(self, hot: float, seeds: float, stops: float, completes: float) -> None:
        """Shares of 1: of draws from torrent 0 alone; of peers that come as seeders; of events of present peers."""
        if min(hot, seeds, stops, completes) < 0 or max(hot, seeds, stops + completes) > 1:
            raise ValueError("shares are 0 to 1")
        self.hot = round(hot * 65536)
        self.seeds = round(seeds * 65536)
        self.stops = round(stops * 65536)
        self.completes = round(completes * 65536)

    # Doors for a driver that asks one by one

    def draw(self) -> int:
        """Choose a peer and what it announces, which is then under way; -1 if those that were tried are under way."""
        peer: size = self.choose(-1)
        return self.start(peer) if peer >= 0 else -1

    def begin(self, peer: size) -> bool:
        """Let a certain peer announce; False if it does so already."""
        self._check(peer)
        if self.flights[peer] & FLYING:
            return False
        self.start(peer)
        return True

    def event_of(self, peer: size) -> int:
        """What is under way: 0 none, 1 completed, 2 started, 3 stopped."""
        self._check(peer)
        return self.event(peer)

    def left_of(self, peer: size) -> int:
        """Whether something is left to download."""
        self._check(peer)
        return self.left(peer)

    def torrent_of(self, peer: size) -> int:
        """The torrent of a peer."""
        self._check(peer)
        return self.torrent(peer)

    def info_hash(self, torrent: size) -> bytes:
        """20 bytes."""
        if not 0 <= torrent < self.torrents:
            raise ValueError("no such torrent")
        out = bytearray(20)
        self.put_hash(out, 0, torrent)
        return bytes(out)

    def lose(self, peer: size) -> None:
        """No answer came: it may have been heard, or not."""
        self._check(peer)
        self.give_up(peer)

    def refuse(self, peer: size, fault: u32) -> None:
        """An answer came that is none: MALFORMED or ERROR."""
        self._check(peer)
        self.note(fault, self.torrent(peer), peer, 0, 0, 0)
        self.give_up(peer)

    def judge(self, peer: size, seeders: i64, leechers: i64, listed4: View, listed6: View, want: size) -> int:
        """Take the answer to an announce; the faults that it has, as bits."""
        self._check(peer)
        if len(listed4) % 6 or len(listed6) % 18:
            self.refuse(peer, MALFORMED)
            return MALFORMED
        ipv6: cython.bint = self.families[peer // self.ports] != 0
        state: u32 = self.state_of(peer)
        if self.is_empty(peer, seeders, leechers) and len(listed4) == 0 and len(listed6) == 0:
            self.give_up(peer)
            return 0
        doubt: i64 = self.acknowledge(peer)
        faults: u32 = self.judge_counts(self.torrent(peer), doubt, seeders, leechers)
        faults |= self.judge_listed(peer, listed4, 0, len(listed4) // 6, False, doubt)
        faults |= self.judge_listed(peer, listed6, 0, len(listed6) // 18, True, doubt)
        if state != ABSENT:
            faults |= self.judge_many(peer, len(listed6) // 18 if ipv6 else len(listed4) // 6, want, doubt)
        return faults

    def stamp(self, torrent: size) -> int:
        """What a scrape must keep for its answer."""
        if not 0 <= torrent < self.torrents:
            raise ValueError("no such torrent")
        return self.changes[torrent]

    def judge_scrape(self, torrent: size, stamp: u32, seeders: i64, leechers: i64) -> int:
        """The faults of what a scrape says of a torrent."""
        if not 0 <= torrent < self.torrents:
            raise ValueError("no such torrent")
        return self.judge_counts(torrent, self.doubt_since(torrent, stamp), seeders, leechers)

    def doubt(self) -> None:
        """Whatever the tracker knew, it may have lost."""
        peer: size
        for peer in range(self.peers):
            self._believe(peer, self.mask(peer) | ABSENT)

    def unsure(self) -> int:
        """Peers of which it is not known what the tracker believes."""
        peer: size
        many: size = 0
        for peer in range(self.peers):
            many += self.mask(peer) & (self.mask(peer) - 1) != 0
        return many

    def faults(self) -> dict:
        """How often each fault was found."""
        return {name: self.found[bit] for bit, name in enumerate(FAULTS) if self.found[bit]}

    def example(self, name: str) -> str:
        """The first time that a fault was found, in words."""
        bit = FAULTS.index(name)
        torrent, peer, got, least, most = [self.examples[bit * EXAMPLE + n] for n in range(EXAMPLE)]
        where = f"torrent {torrent}" + (f", peer {peer}" if peer >= 0 else "")
        return f"{where}: {got}" + (f", expected {least} to {most}" if most >= least >= 0 and most else "")

    def _check(self, peer: size) -> None:
        if not 0 <= peer < self.peers:
            raise ValueError("no such peer")

    # For the codec

    def word(self) -> u64:
        """The next random word: xorshift64* (Vigna, 2016)."""
        x: u64 = self.random
        x ^= x >> 12
        x = x ^ wrap(x << 25)
        x ^= x >> 27
        self.random = x
        return wrap(x * STAR)

    def chance(self, share: u32) -> cython.bint:
        """True with a chance of share / 65536."""
        return (self.word() >> 48) < share

    def choose(self, source: size) -> size:
        """A random peer of which nothing is under way, of a source or (-1) of any; -1 if none was found."""
        attempt: size
        peer: size
        hot: cython.bint = self.chance(self.hot)
        for attempt in range(ATTEMPTS):
            if hot:
                peer = self._peer_at(self._below(self.hot_peers))
                if source >= 0 and peer // self.ports != source:
                    continue
            elif source >= 0:
                peer = source * self.ports + self._below(self.ports)
            else:
                peer = self._below(self.peers)
            if not self.flights[peer] & FLYING:
                return peer
        return -1

    def start(self, peer: size) -> size:
        """Let a peer announce what fits its state; returns it."""
        mask: u32 = self.mask(peer)
        roll: u32 = cython.cast(u32, self.word() >> 48)
        state: u32 = SEEDER if mask & SEEDER else LEECHER
        event: u32 = NONE
        left: u32 = 0 if mask & SEEDER else LEFT
        if mask == ABSENT:
            event = STARTED
            state = SEEDER if roll < self.seeds else LEECHER
            left = LEFT if state == LEECHER else 0
        elif roll < self.stops:
            event = STOPPED
            state = ABSENT
        elif mask == LEECHER and roll < self.stops + self.completes:
            event = COMPLETED
            state = SEEDER
            left = 0
        self.flights[peer] = cython.cast(u8, FLYING | left | (event << EVENT_SHIFT) | state)
        self._believe(peer, mask | state)
        self.stamps[peer] = self.changes[self.torrent(peer)]
        return peer

    def is_flying(self, peer: size) -> cython.bint:
        """Whether something is under way."""
        return (self.flights[peer] & FLYING) != 0

    def event(self, peer: size) -> u32:
        """What is under way."""
        return (cython.cast(u32, self.flights[peer]) >> EVENT_SHIFT) & EVENT

    def left(self, peer: size) -> u32:
        """1 if something is left to download."""
        return (cython.cast(u32, self.flights[peer]) & LEFT) >> 5

    def torrent(self, peer: size) -> size:
        """The torrent of a peer."""
        return self.rows[peer] & TORRENT

    def mask(self, peer: size) -> u32:
        """What the tracker may believe of a peer."""
        return self.rows[peer] >> MASK_SHIFT

    def is_seen(self, peer: size) -> cython.bint:
        """Whether this answer has listed a peer already."""
        word: u64 = cython.cast(u64, self.answer) << 32 | cython.cast(u64, peer)
        place: size = peer & (SEEN - 1)
        while self.seen[place] >> 32 == self.answer:
            if self.seen[place] == word:
                return True
            place = (place + 1) & (SEEN - 1)
        self.seen[place] = word
        return False

    def state_of(self, peer: size) -> u32:
        """What a peer is once what is under way was heard."""
        return self.flights[peer] & STATE

    def stamp_of(self, torrent: size) -> u32:
        """What a scrape must keep."""
        return self.changes[torrent]

    def doubt_since(self, torrent: size, stamp: u32) -> u32:
        """How many changes there were."""
        return cython.cast(u32, (self.changes[torrent] - stamp) & ALL32)

    def give_up(self, peer: size) -> cython.void:
        """Nothing is under way any longer."""
        self.flights[peer] = 0

    def is_empty(self, peer: size, seeders: i64, leechers: i64) -> cython.bint:
        """Whether an answer acknowledges nothing, as it does not even count the asker: allowed while not strict."""
        return not self.strict and seeders + leechers == 0 and self.state_of(peer) != ABSENT

    def acknowledge(self, peer: size) -> u32:
        """What was under way was heard; how many changes there were meanwhile."""
        doubt: u32 = self.doubt_since(self.torrent(peer), self.stamps[peer])
        state: u32 = self.state_of(peer)
        self.flights[peer] = 0
        self._believe(peer, state)
        return doubt

    def judge_counts(self, torrent: size, doubt: i64, seeders: i64, leechers: i64) -> u32:
        """Whether counts of a swarm are possible."""
        at: size = torrent * SUMS
        least_leechers: i64 = cython.cast(i64, self.counts[at]) + self.counts[at + 4] - doubt
        least_seeders: i64 = cython.cast(i64, self.counts[at + 1]) + self.counts[at + 5] - doubt
        most_leechers: i64 = cython.cast(i64, self.counts[at + 2]) + self.counts[at + 6] + doubt
        most_seeders: i64 = cython.cast(i64, self.counts[at + 3]) + self.counts[at + 7] + doubt
        faults: u32 = 0
        if seeders > most_seeders or (self.strict and seeders < least_seeders):
            faults |= self.note(SEEDERS, torrent, -1, seeders, least_seeders, most_seeders)
        if leechers > most_leechers or (self.strict and leechers < least_leechers):
            faults |= self.note(LEECHERS, torrent, -1, leechers, least_leechers, most_leechers)
        return faults

    def judge_listed(self, peer: size, raw: View, at: size, many: size, ipv6: cython.bint, doubt: i64) -> u32:
        """Whether each listed peer may be there, for an asker whose announce was acknowledged."""
        n: size
        other: size
        mask: u32
        faults: u32 = 0
        torrent: size = self.torrent(peer)
        stride: size = 18 if ipv6 else 6
        if at < 0 or many < 0 or at + many * stride > len(raw):
            return self.note(MALFORMED, torrent, peer, many, 0, 0)
        self.answer = cython.cast(u32, (self.answer + 1) & ALL32)
        for n in range(many):
            other = self._find(raw, at + n * stride, ipv6)
            if other < 0 or cython.cast(size, self.torrent(other)) != torrent:
                faults |= self.note(STRANGER, torrent, peer, other, 0, 0)
                continue
            if other == peer:
                faults |= self.note(OWN, torrent, peer, other, 0, 0)
            if n < MOST_SEEN and self.is_seen(other):
                faults |= self.note(TWICE, torrent, peer, other, 0, 0)
            mask = self.mask(other)
            if doubt == 0 and mask == ABSENT and other != peer:
                faults |= self.note(DEPARTED, torrent, peer, other, 0, 0)
            elif doubt == 0 and mask == SEEDER and self.mask(peer) == SEEDER:
                faults |= self.note(ROLE, torrent, peer, other, 0, 0)
        return faults

    def judge_many(self, peer: size, many: size, want: size, doubt: i64) -> u32:
        """Whether enough peers of the asker's family are listed, for an announce that was acknowledged."""
        torrent: size = self.torrent(peer)
        at: size = torrent * SUMS + (4 if self.families[peer // self.ports] else 0)
        mask: u32 = self.mask(peer)
        least: i64 = cython.cast(i64, self.counts[at]) - doubt
        if mask == LEECHER:
            least += cython.cast(i64, self.counts[at + 1]) - 1
        least = want if least > want else least
        if self.strict and many < least:
            return self.note(FEW, torrent, peer, many, least, want)
        return 0

    def note(self, fault: u32, torrent: size, peer: size, got: i64, least: i64, most: i64) -> u32:
        """Count a fault, and keep the first; returns it."""
        bit: size = 0
        while bit < 31 and (fault >> bit) != 1:
            bit += 1
        if self.found[bit] == 0:
            self.examples[bit * EXAMPLE] = torrent
            self.examples[bit * EXAMPLE + 1] = peer
            self.examples[bit * EXAMPLE + 2] = got
            self.examples[bit * EXAMPLE + 3] = least
            self.examples[bit * EXAMPLE + 4] = most
        self.found[bit] += 1
        return fault

    def put_hash(self, out: u8[::1], at: size, torrent: size) -> cython.void:
        """Write the info-hash of a torrent, 20 bytes."""
        n: size
        word: u64 = 0
        for n in range(20):
            if n % 8 == 0:
                word = mix(wrap(self.seed + cython.cast(u64, torrent * 3 + n // 8 + 1) * GOLDEN))
            out[at + n] = cython.cast(u8, word & 0xFF)
            word >>= 8

    # Inside

    def _peer_at(self, slot: size) -> size:
        """Peers in the order of their swarms."""
        return cython.cast(
            size, (cython.cast(u64, slot) * cython.cast(u64, self.stride)) % cython.cast(u64, self.peers)
        )

    def _below(self, most: size) -> size:
        """A random number from 0 on, below `most`."""
        return cython.cast(size, ((self.word() >> 32) * cython.cast(u64, most)) >> 32)

    def _count(self, peer: size, mask: u32, change: u32) -> cython.void:
        """Add to the sums of a swarm, or take off: change is 1 or 2^32 - 1."""
        at: size = self.torrent(peer) * SUMS + (4 if self.families[peer // self.ports] else 0)
        if mask & LEECHER:
            self.counts[at + 2] = cython.cast(u32, (cython.cast(u64, self.counts[at + 2]) + change) & ALL32)
        if mask & SEEDER:
            self.counts[at + 3] = cython.cast(u32, (cython.cast(u64, self.counts[at + 3]) + change) & ALL32)
        if mask == LEECHER:
            self.counts[at] = cython.cast(u32, (cython.cast(u64, self.counts[at]) + change) & ALL32)
        if mask == SEEDER:
            self.counts[at + 1] = cython.cast(u32, (cython.cast(u64, self.counts[at + 1]) + change) & ALL32)

    def _believe(self, peer: size, mask: u32) -> cython.void:
        """Note what the tracker may believe of a peer."""
        old: u32 = self.mask(peer)
        if mask == old:
            return
        self._count(peer, old, cython.cast(u32, ALL32))
        self._count(peer, mask, 1)
        torrent: size = self.torrent(peer)
        self.rows[peer] = cython.cast(u32, torrent) | mask << MASK_SHIFT
        self.changes[torrent] = cython.cast(u32, (cython.cast(u64, self.changes[torrent]) + 1) & ALL32)
        self.present += (mask != ABSENT) - (old != ABSENT)

    def _find(self, raw: View, at: size, ipv6: cython.bint) -> size:
        """The peer with an endpoint, or -1."""
        end: size = at + (16 if ipv6 else 4)
        port: size = (cython.cast(size, raw[end]) << 8 | raw[end + 1]) - self.first_port
        source: size = self._find_source(raw, at, ipv6)
        if source < 0 or port < 0 or port >= self.ports:
            return -1
        return source * self.ports + port

    def _find_source(self, raw: View, at: size, ipv6: cython.bint) -> size:
        """The source with an address, or -1."""
        source: size
        place: size = self._place_of(raw, at, ipv6)
        while self.places[place]:
            source = cython.cast(size, self.places[place]) - 1
            if (self.families[source] != 0) == ipv6 and self._is_at(source, raw, at, 16 if ipv6 else 4):
                return source
            place = (place + 1) % PLACES
        return -1

    def _place_of(self, raw: View, at: size, ipv6: cython.bint) -> size:
        """Where the search for an address begins."""
        last: size = at + (12 if ipv6 else 0)
        word: u64 = cython.cast(u64, raw[last]) << 24 | cython.cast(u64, raw[last + 1]) << 16
        word |= cython.cast(u64, raw[last + 2]) << 8 | raw[last + 3]
        return cython.cast(size, ((word * SPREAD) & ALL32) >> 24)

    def _is_at(self, source: size, raw: View, at: size, length: size) -> cython.bint:
        """Whether a source's address stands there."""
        n: size
        for n in range(length):
            if self.addresses[16 * source + n] != raw[at + n]:
                return False
        return True
