"""KERNEL: SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012)."""

import cython

u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

ALL64 = cython.declare(u64, 0xFFFF_FFFF_FFFF_FFFF)
SIP0 = cython.declare(u64, 0x736F_6D65_7073_6575)
SIP1 = cython.declare(u64, 0x646F_7261_6E64_6F6D)
SIP2 = cython.declare(u64, 0x6C79_6765_6E65_7261)
SIP3 = cython.declare(u64, 0x7465_6462_7974_6573)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def wrap(x: u64) -> u64:
    """A sum, product or shift, modulo 2^64: what C does of itself."""
    if cython.compiled:
        return x
    else:
        return x & ALL64


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def turn(x: u64, by: u32) -> u64:
    return wrap(x << by) | (x >> (64 - by))


def sip(k0: u64, k1: u64, m0: u64, m1: u64, m2: u64, m3: u64, m4: u64, words: size) -> u64:
    """The hash of up to five message words, the last of which holds the message's length in its last byte."""
    v0: u64 = k0 ^ SIP0
    v1: u64 = k1 ^ SIP1
    v2: u64 = k0 ^ SIP2
    v3: u64 = k1 ^ SIP3
    m: u64
    i: size
    r: size
    rounds: size = 2
    for i in range(words + 1):
        m = m0
        m0 = m1
        m1 = m2
        m2 = m3
        m3 = m4
        if i == words:
            m = 0
            v2 ^= 0xFF
            rounds = 4
        v3 ^= m
        for r in range(rounds):
            v0 = wrap(v0 + v1)
            v1 = turn(v1, 13) ^ v0
            v0 = turn(v0, 32)
            v2 = wrap(v2 + v3)
            v3 = turn(v3, 16) ^ v2
            v0 = wrap(v0 + v3)
            v3 = turn(v3, 21) ^ v0
            v2 = wrap(v2 + v1)
            v1 = turn(v1, 17) ^ v2
            v2 = turn(v2, 32)
        v0 ^= m
    return v0 ^ v1 ^ v2 ^ v3


def siphash(key: bytes, message: bytes) -> int:
    """SipHash-2-4 of at most 39 bytes under a key of 16, as a number (its bytes least significant first)."""
    if len(key) != 16 or len(message) > 39:
        raise ValueError("a key of 16 bytes and a message of at most 39")
    padded = message + bytes(39 - len(message)) + b"\0"
    m = [int.from_bytes(padded[8 * i : 8 * i + 8], "little") for i in range(5)]
    words = len(message) // 8 + 1
    m[words - 1] |= (len(message) & 0xFF) << 56
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:], "little")
    return sip(k0, k1, m[0], m[1], m[2], m[3], m[4], words)
