"""KERNEL: what one source may ask: token buckets, and the networks that are treated otherwise.

A token bucket for connects and one for the rest, for each /32 or /64, kept as the time at which the bucket is
full again (GCRA, ITU-T I.371). The table is of fixed size, four places to a set; the place whose buckets are
fullest is taken over, so a flood of sources does not free one that is being limited.
Addresses are two words as they lie in memory, IPv4 in ::ffff:0:0/96.
"""

import cython

u64 = cython.typedef(cython.ulonglong)
u32 = cython.typedef(cython.uint)
size = cython.typedef(cython.Py_ssize_t)

ALL32 = cython.declare(u64, 0xFFFF_FFFF)
ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
SPREAD = cython.declare(u64, 0x9E37_79B9_7F4A_7C15)
MAPPED = cython.declare(u64, 0xFFFF_0000)  # bytes 8..11 of an IPv4 address seen as IPv6
SETS = cython.declare(u64, 1 << 14)
CONNECTIONS = cython.declare(u64, (1 << 15) - 1)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A product, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


def is_ipv6(high: u64, low: u64) -> cython.bint:
    """Whether an address is none of IPv4's."""
    return high != 0 or (low & ALL32) != MAPPED


@cython.cclass
class Sources:
    """Buckets for all sources of a gateway. allocate: gives memory, see common/batch_io.py."""

    def __init__(self, allocate: object):
        self.buckets = memoryview(allocate((1 << 14) * 4 * 24)).cast("Q")
        self.connections = memoryview(bytearray(4 << 15)).cast("I")
        self.set_networks(b"", b"")
        self.refused_high = 0
        self.refused_low = 0
        self.secret = 0
        self.set_limits(20, 60, 50, 300)

    # Doors

    def set_secret(self, secret: u64) -> None:
        """64 random bits, so that nobody can aim at another source's bucket."""
        self.secret = secret

    def set_limits(self, connects: float, connect_burst: u64, requests: float, request_burst: u64) -> None:
        """Rates per second, bursts in tokens."""
        self.connect_cost = max(1, round(1_000_000 / connects))
        self.connect_burst = self.connect_cost * connect_burst
        self.request_cost = max(1, round(1_000_000 / requests))
        self.request_burst = self.request_cost * request_burst

    def set_networks(self, exempt: bytes, trusted: bytes, proxies: bytes = b"") -> None:
        """Networks that limits do not refuse; whose IP field is honoured; whose X-Forwarded-For is.

        A network has 16 bytes, then its mask's 16.
        """
        if len(exempt) % 32 or len(trusted) % 32 or len(proxies) % 32:
            raise ValueError("a network has 16 bytes and a mask of 16")
        self.networks = memoryview(bytearray(exempt + trusted + proxies)).cast("Q")
        self.exempt = len(exempt) // 8
        self.trusted = self.exempt + len(trusted) // 8
        self.proxies = self.trusted + len(proxies) // 8

    def last_refused(self) -> bytes:
        """The address, 16 bytes, that was refused last; empty if there is none."""
        if self.refused_high == 0 and self.refused_low == 0:
            return b""
        return int(self.refused_high).to_bytes(8, "little") + int(self.refused_low).to_bytes(8, "little")

    # Leaves

    def is_exempt(self, high: u64, low: u64) -> cython.bint:
        return self._is_in(0, self.exempt, high, low)

    def is_trusted(self, high: u64, low: u64) -> cython.bint:
        return self._is_in(self.exempt, self.trusted, high, low)

    def is_proxy(self, high: u64, low: u64) -> cython.bint:
        return self._is_in(self.trusted, self.proxies, high, low)

    def _is_in(self, at: size, end: size, high: u64, low: u64) -> cython.bint:
        """Whether an address is in one of the networks at..end: each two words, then two of its mask."""
        while at < end:
            if (low & self.networks[at + 3]) == self.networks[at + 1] and (
                high & self.networks[at + 2]
            ) == self.networks[at]:
                return True
            at += 4
        return False

    def note_refused(self, high: u64, low: u64) -> cython.void:
        """Remember whom a limit or a bad connection id refused."""
        self.refused_high = high
        self.refused_low = low

    def admit_connect(self, high: u64, low: u64, now: u64) -> cython.bint:
        """Take a token for a connect; exempt sources are not refused."""
        return self._admit(self.connect_cost, self.connect_burst, 1, high, low, now)

    def admit_request(self, high: u64, low: u64, now: u64) -> cython.bint:
        """Take a token for an announce or a scrape; exempt sources are not refused."""
        return self._admit(self.request_cost, self.request_burst, 2, high, low, now)

    def key_of(self, high: u64, low: u64) -> u64:
        """A keyed hash of a source."""
        key: u64 = wrap((self.secret ^ (high if is_ipv6(high, low) else low)) * SPREAD)
        key ^= key >> 32
        return wrap(key * SPREAD)

    def _admit(self, cost: u64, burst: u64, which: size, high: u64, low: u64, now: u64) -> cython.bint:
        key: u64 = self.key_of(high, low) | 1  # 0: a place never used
        at: size = cython.cast(size, (key >> 40) & (SETS - 1)) * 12
        place: size = at
        oldest: u64 = ALL64
        latest: u64
        i: size
        for i in range(4):
            if self.buckets[at] == key:
                place = at
                break
            latest = self.buckets[at + 1] if self.buckets[at + 1] > self.buckets[at + 2] else self.buckets[at + 2]
            if latest < oldest:
                oldest = latest
                place = at
            at += 3
        if self.buckets[place] != key:
            self.buckets[place] = key
            self.buckets[place + 1] = 0
            self.buckets[place + 2] = 0
        latest = self.buckets[place + which]
        if latest < now:
            latest = now
        if latest + cost > now + burst:
            return self.is_exempt(high, low)
        self.buckets[place + which] = latest + cost
        return True

    def count_connection(self, high: u64, low: u64, change: cython.int) -> u32:
        """Count a connection of a source (1), or no longer (-1); how many it has now.

        Few sources share a counter: 32,768 for a few thousand connections.
        """
        at: size = cython.cast(size, (self.key_of(high, low) >> 32) & CONNECTIONS)
        if change < 0:
            if self.connections[at] > 0:
                self.connections[at] -= 1
        else:
            self.connections[at] += change
        return self.connections[at]
