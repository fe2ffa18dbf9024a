"""KERNEL: bencoded answers (BEP 3, 7, 23, 24), written to an output buffer."""

import cython

from gateway import http_texts

if cython.compiled:
    from cython.cimports.gateway.sources import is_ipv6
    from cython.cimports.libc.string import memcpy
else:
    from gateway.sources import is_ipv6

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

COMPLETE = cython.declare(size, http_texts.COMPLETE)
DOWNLOADED = cython.declare(size, http_texts.DOWNLOADED)
EXTERNAL_4 = cython.declare(size, http_texts.EXTERNAL_4)
EXTERNAL_6 = cython.declare(size, http_texts.EXTERNAL_6)
INCOMPLETE = cython.declare(size, http_texts.INCOMPLETE)
INTERVAL = cython.declare(size, http_texts.INTERVAL)
MIN_INTERVAL = cython.declare(size, http_texts.MIN_INTERVAL)
PEER_IP = cython.declare(size, http_texts.PEER_IP)
PEER_PORT = cython.declare(size, http_texts.PEER_PORT)


@cython.cclass
class HttpAnswer:
    """The answer in hand: written to `output` at `to`, which the caller bounds; peers come from `replies`."""

    def __init__(self, output: u8[::1]):
        self.output = output
        self.replies = output
        self.texts = memoryview(http_texts.TEXTS)
        self.text_at = memoryview(http_texts.TEXT_AT)
        self.faults = memoryview(b"")
        self.fault_at = memoryview(bytearray(8 * http_texts.FAULTS)).cast("I")
        self.digits = memoryview(bytearray(24))
        self.start = 0
        self.to = 0

    def set_interval(self, interval: u32) -> None:
        """The interval, in seconds, that failures tell."""
        text: bytes = b""
        for fault in range(http_texts.FAULTS):
            self.fault_at[2 * fault] = len(text)
            text += http_texts.failure(fault, interval)
            self.fault_at[2 * fault + 1] = len(text)
        self.faults = text

    def counts(self, high: u64, low: u64, seeders: u64, completed: u64, leechers: u64, interval: u64) -> cython.void:
        """What comes before the peers, in the order of the keys."""
        i: size
        self.text(COMPLETE)
        self.number(seeders)
        self.text(DOWNLOADED)
        self.number(completed)
        if is_ipv6(high, low):
            self.text(EXTERNAL_6)
            for i in range(8):
                self.byte(cython.cast(u32, high >> (8 * i) & 0xFF))
            for i in range(8):
                self.byte(cython.cast(u32, low >> (8 * i) & 0xFF))
        else:
            self.text(EXTERNAL_4)
            for i in range(4, 8):
                self.byte(cython.cast(u32, low >> (8 * i) & 0xFF))
        self.text(INCOMPLETE)
        self.number(leechers)
        self.text(INTERVAL)
        self.number(interval)
        self.text(MIN_INTERVAL)
        self.number(interval // 2)

    def peers(self, at: size, many: size, stride: size) -> cython.void:
        """Peers as dictionaries, without the ids that nobody keeps."""
        i: size
        start: size
        for i in range(many):
            self.text(PEER_IP)
            start = self.to
            self.to += 3  # room for the length, two digits at most
            if stride == 6:
                self._write4(at)
            else:
                self._write6(at)
            self._prefix(start, self.to - start - 3)
            self.text(PEER_PORT)
            self.number(cython.cast(u64, self.replies[at + stride - 2]) << 8 | self.replies[at + stride - 1])
            self.byte(101)
            self.byte(101)
            at += stride

    def _prefix(self, start: size, many: size) -> cython.void:
        """Write a string's length and colon in front of it, closing up the room that was left."""
        i: size
        wide: size = 3 if many > 9 else 2
        if many > 9:
            self.output[start] = 48 + many // 10
        self.output[start + wide - 2] = 48 + many % 10
        self.output[start + wide - 1] = 58
        if wide == 2:
            for i in range(many):
                self.output[start + 2 + i] = self.output[start + 3 + i]
            self.to -= 1

    def _write4(self, at: size) -> cython.void:
        i: size
        for i in range(4):
            if i != 0:
                self.byte(46)
            self.number(self.replies[at + i])

    def _write6(self, at: size) -> cython.void:
        """An IPv6 address as RFC 5952 has it: the longest run of zero groups left out."""
        i: size
        run: size = 0
        best: size = 0
        begin: size = -1
        group: u32
        shift: u32
        for i in range(8):
            run = run + 1 if self.replies[at + 2 * i] == 0 and self.replies[at + 2 * i + 1] == 0 else 0
            if run > best:
                best = run
                begin = i - run + 1
        if best < 2:
            begin = -1
        i = 0
        while i < 8:
            if i == begin:
                self.byte(58)
                self.byte(58)
                i += best
                continue
            if i != 0 and i != begin + best or begin < 0 and i != 0:
                self.byte(58)
            group = cython.cast(u32, self.replies[at + 2 * i]) << 8 | self.replies[at + 2 * i + 1]
            shift = 12
            while shift > 0 and group >> shift == 0:
                shift -= 4
            while True:
                self.byte(48 + (group >> shift & 15) if (group >> shift & 15) < 10 else 87 + (group >> shift & 15))
                if shift == 0:
                    break
                shift -= 4
            i += 1

    def failure(self, fault: size) -> cython.void:
        i: size
        for i in range(self.fault_at[2 * fault], self.fault_at[2 * fault + 1]):
            self.byte(self.faults[i])

    def byte(self, byte: u32) -> cython.void:
        self.output[self.to] = byte
        self.to += 1

    def text(self, text: size) -> cython.void:
        """One of the texts."""
        start: size = self.text_at[text]
        many: size = self.text_at[text + 1] - start
        if start + many > len(self.texts) or self.to + many > len(self.output):
            return
        if cython.compiled:
            memcpy(cython.address(self.output[self.to]), cython.address(self.texts[start]), many)
        else:
            self.output[self.to : self.to + many] = self.texts[start : start + many]
        self.to += many

    def take(self, at: size, many: size) -> cython.void:
        if many <= 0 or at + many > len(self.replies) or self.to + many > len(self.output):
            return
        if cython.compiled:
            memcpy(cython.address(self.output[self.to]), cython.address(self.replies[at]), many)
        else:
            self.output[self.to : self.to + many] = self.replies[at : at + many]
        self.to += many

    def hash(self, source: u8[::1], at: size) -> cython.void:
        """A gathered hash as a key: 20:..."""
        i: size
        self.byte(50)
        self.byte(48)
        self.byte(58)
        for i in range(20):
            self.byte(source[at + i])

    def number(self, value: u64) -> cython.void:
        """A number in decimal."""
        at: size = 24
        i: size
        while True:
            at -= 1
            self.digits[at] = 48 + value % 10
            value //= 10
            if value == 0:
                break
        for i in range(at, 24):
            self.byte(self.digits[i])

    def u16_at(self, at: size) -> u32:
        high: u32 = self.replies[at + 1]
        return self.replies[at] | (high << 8)

    def u32_at(self, at: size) -> u64:
        return self.u16_at(at) | cython.cast(u64, self.u16_at(at + 2)) << 16

    def u64_at(self, at: size) -> u64:
        return self.u32_at(at) | self.u32_at(at + 4) << 32

    def be32_at(self, at: size) -> u64:
        word: u64 = self.u32_at(at)
        return (word & 0xFF) << 24 | (word & 0xFF00) << 8 | (word >> 8 & 0xFF00) | word >> 24
