"""KERNEL: IP addresses as text, from strangers: IPv4, and IPv6 as RFC 4291, 2.2 has it.

Functions that read strangers' bytes end in _unsafe; they cannot fail, but say so.
"""

import cython

u8 = cython.typedef(cython.uchar)
u32 = cython.typedef(cython.uint)
u64 = cython.typedef(cython.ulonglong)
size = cython.typedef(cython.Py_ssize_t)

MAPPED = cython.declare(u64, 0xFFFF_0000)


def digit_of(byte: u32) -> u32:
    """A hexadecimal digit's value, 16 if it is none."""
    if 48 <= byte <= 57:
        return byte - 48
    byte |= 0x20
    return byte - 87 if 97 <= byte <= 102 else 16


@cython.cclass
class AddressReader:
    """Reads addresses from `input` into `high` and `low`: two words as they lie in memory, IPv4 in ::ffff:0:0/96."""

    def __init__(self, input: u8[::1]):
        self.input = input
        self.groups = memoryview(bytearray(2 * 8)).cast("H")
        self.high = 0
        self.low = 0

    def read_unsafe(self, at: size, end: size) -> cython.bint:
        """Read an address of text, with or without a port; False if it is none."""
        bracket: cython.bint
        colons: size = 0
        i: size
        while at < end and (self.input[at] == 32 or self.input[at] == 9):
            at += 1
        while at < end and (self.input[end - 1] == 32 or self.input[end - 1] == 9):
            end -= 1
        bracket = at < end and self.input[at] == 91
        if bracket:
            at += 1
            i = at
            while i < end and self.input[i] != 93:
                i += 1
            if i == end:
                return False
            return self._six_unsafe(at, i)
        for i in range(at, end):
            if self.input[i] == 58:
                colons += 1
        if colons > 1:
            return self._six_unsafe(at, end)
        if colons == 1:
            while self.input[end - 1] != 58:
                end -= 1
            end -= 1
        return self._four_unsafe(at, end)

    def _four_unsafe(self, at: size, end: size) -> cython.bint:
        """Read a dotted quad into high and low."""
        parts: size = 0
        many: size = 0
        value: u64 = 0
        low: u64 = MAPPED
        byte: u32
        if end - at < 7 or end - at > 15:
            return False
        while at <= end:
            byte = self.input[at] if at < end else 46
            if byte == 46:
                if many == 0 or value > 255 or parts == 4:
                    return False
                low |= value << (32 + 8 * parts)
                parts += 1
                many = 0
                value = 0
            elif 48 <= byte <= 57 and many < 3:
                value = value * 10 + (byte - 48)
                many += 1
            else:
                return False
            at += 1
        self.high = 0
        self.low = low
        return parts == 4

    def _six_unsafe(self, at: size, end: size) -> cython.bint:
        """Read an IPv6 address (RFC 4291, 2.2), without a zone, into high and low."""
        many: size = 0
        gap: size = -1
        digits: size = 0
        value: u32 = 0
        start: size = at
        i: size
        word: u64
        if end - at < 2 or end - at > 45:
            return False
        for i in range(8):
            self.groups[i] = 0
        if self.input[at] == 58:
            if self.input[at + 1] != 58:
                return False
            at += 1
        while at < end:
            if self.input[at] == 58:
                if digits == 0:
                    if gap >= 0:
                        return False
                    gap = many
                else:
                    if many == 8:
                        return False
                    self.groups[many] = value
                    many += 1
                at += 1
                start = at
                digits = 0
                value = 0
                continue
            if self.input[at] == 46:
                if many > 6 or not self._four_unsafe(start, end):
                    return False
                self.groups[many] = ((self.low >> 32) & 0xFF) << 8 | ((self.low >> 40) & 0xFF)
                self.groups[many + 1] = ((self.low >> 48) & 0xFF) << 8 | ((self.low >> 56) & 0xFF)
                many += 2
                digits = -1
                break
            if digit_of(self.input[at]) > 15 or digits == 4:
                return False
            value = value * 16 + digit_of(self.input[at])
            digits += 1
            at += 1
        if digits > 0:
            if many == 8:
                return False
            self.groups[many] = value
            many += 1
        elif digits == 0 and gap != many:
            return False
        if gap < 0 and many != 8 or gap >= 0 and many > 7:
            return False
        if gap >= 0:
            for i in range(many - gap):
                self.groups[7 - i] = self.groups[many - 1 - i]
            for i in range(gap, 8 - (many - gap)):
                self.groups[i] = 0
        self.high = 0
        self.low = 0
        for i in range(4):
            word = (self.groups[i] >> 8) | ((self.groups[i] & 0xFF) << 8)
            self.high |= word << (16 * i)
            word = (self.groups[4 + i] >> 8) | ((self.groups[4 + i] & 0xFF) << 8)
            self.low |= word << (16 * i)
        return True
