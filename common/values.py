"""The kinds of value that a configuration holds, each read from what YAML or JSON has and checked at once.

Every class has `read(value)`, which raises `UnfitError` with what was expected, and `EXPECTED`, the words for it.
Each is an `int` or a `str`, so that whoever uses it needs nothing of this module.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import ClassVar, Self

from common.units import format_duration, format_size, parse_duration, parse_size


class UnfitError(ValueError):
    """A value that cannot be taken; the text says what was expected in its place."""


class Quantity(int):
    """A whole number in a unit, given as a number or in human form, from `least` to `most`."""

    EXPECTED: ClassVar[str] = ""
    least: ClassVar[int]
    most: ClassVar[int]

    @staticmethod
    def parse(text: str) -> int:
        """The number that a text in human form means. Raises ValueError."""
        raise NotImplementedError

    @classmethod
    def read(cls, value: object) -> Self:
        number = value
        if isinstance(value, str):
            try:
                number = cls.parse(value)
            except ValueError:
                number = None
        if isinstance(number, bool) or not isinstance(number, int) or not cls.least <= number <= cls.most:
            raise UnfitError(cls.EXPECTED)
        return cls(number)


class Seconds(Quantity):
    """A duration in seconds."""

    parse = staticmethod(parse_duration)

    def __init_subclass__(cls, least: str, most: str) -> None:
        cls.least, cls.most = parse_duration(least), parse_duration(most)
        cls.EXPECTED = f"a duration from {least} to {most}, such as 30m, 90 s or 1h30m"

    def __str__(self) -> str:
        return format_duration(self)


class Size(Quantity):
    """A size in bytes."""

    parse = staticmethod(parse_size)

    def __init_subclass__(cls, least: str, most: str) -> None:
        cls.least, cls.most = parse_size(least), parse_size(most)
        cls.EXPECTED = f"a size from {least} to {most}, such as 64 MiB"

    def __str__(self) -> str:
        return format_size(self)


class Word(str):
    """One word of a fixed list."""

    EXPECTED: ClassVar[str]
    words: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, words: str) -> None:
        cls.words = tuple(words.split())
        cls.EXPECTED = "one of " + ", ".join(cls.words)

    @classmethod
    def read(cls, value: object) -> Self:
        if value not in cls.words:
            raise UnfitError(cls.EXPECTED)
        return cls(value)


class Name(str):
    """The name of a process of the cluster."""

    EXPECTED = "a name of at most 63 letters, digits, '.', '_' and '-', the first a letter or a digit"
    FORM: ClassVar = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, str) or not cls.FORM.fullmatch(value):
            raise UnfitError(cls.EXPECTED)
        return cls(value)


class Network(str):
    """A network in CIDR form, or a single address; `network` has it parsed."""

    EXPECTED = "a network such as 10.0.0.0/8, 2001:db8::/32 or a single address"
    network: IPv4Network | IPv6Network

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.network = ip_network(text)
        return self

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise UnfitError(cls.EXPECTED)
        try:
            return cls(value)
        except ValueError as error:
            hint = f" ({error})" if "host bits" in str(error) else ""
            raise UnfitError(cls.EXPECTED + hint) from None


class Endpoint(str):
    """An address and a port to listen on: `0.0.0.0:6969`, `[::]:6969`. Port 0 takes any free one."""

    EXPECTED = "an IP address and a port such as 0.0.0.0:6969 or [::]:6969"
    FORM: ClassVar = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<four>[^:\[\]]+)):(?P<port>\d{1,5})", re.ASCII)
    address: IPv4Address | IPv6Address
    port: int

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        match = cls.FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not {cls.EXPECTED}")
        self.address = IPv6Address(match["six"]) if match["six"] else IPv4Address(match["four"])
        self.port = int(match["port"])
        return self

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise UnfitError(cls.EXPECTED)
        try:
            endpoint = cls(value)
        except ValueError:
            raise UnfitError(cls.EXPECTED) from None
        endpoint.check()
        return endpoint

    def check(self) -> None:
        """Refuse what parses but can never be listened on. Raises UnfitError."""
        if self.port > 0xFFFF:
            raise UnfitError(f"{self.EXPECTED}, its port at most 65535")
        if self.address.is_multicast:
            raise UnfitError(f"{self.EXPECTED}, not a multicast address")
        if isinstance(self.address, IPv6Address) and self.address.ipv4_mapped:
            raise UnfitError(f"{self.EXPECTED}; this is {self.address.ipv4_mapped}:{self.port}, write it so")

    def plus(self, more: int) -> "Endpoint":
        """The same address and a higher port. Raises ValueError beyond the last."""
        if self.port + more > 0xFFFF:
            raise ValueError("no such port")
        return Endpoint(f"{self.rpartition(':')[0]}:{self.port + more}")

    def clashes(self, other: "Endpoint") -> bool:
        """Whether both cannot be listened on at once: same family, same port, same address or a wildcard."""
        if self.port != other.port or self.port == 0 or self.address.version != other.address.version:
            return False
        return self.address == other.address or self.address.is_unspecified or other.address.is_unspecified


class LinkAddress(str):
    """Where a shard is reached: `tcp://192.0.2.1:7101`, `tcp://[2001:db8::1]:7101` or `ipc:///run/shoal/shard1`."""

    EXPECTED = "tcp:// with an IP address and a port, such as tcp://192.0.2.1:7101, or ipc:// with a path from /"
    LONGEST = 100  # bytes of a path; the system takes 107

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, str):
            raise UnfitError(cls.EXPECTED)
        self = cls(value)
        if self.endpoint is not None:
            return self
        path = value.removeprefix("ipc://")
        if path == value or not path.startswith("/") or "\0" in path or path.endswith("/"):
            raise UnfitError(cls.EXPECTED)
        if len(path.encode()) > cls.LONGEST:
            raise UnfitError(f"{cls.EXPECTED} of at most {cls.LONGEST} bytes")
        return self

    @property
    def endpoint(self) -> Endpoint | None:
        """Address and port; None if it is a path. Raises UnfitError."""
        if not self.startswith("tcp://"):
            return None
        try:
            endpoint = Endpoint(self.removeprefix("tcp://"))
        except ValueError:
            raise UnfitError(self.EXPECTED) from None
        endpoint.check()
        if endpoint.port == 0:
            raise UnfitError(f"{self.EXPECTED}, its port not 0")
        return endpoint


class PublicKey(str):
    """A CURVE public key: 32 bytes in Z85 (ZeroMQ RFC 32)."""

    EXPECTED = "a public key of 40 characters, as `shoal keys` prints it"
    FORM: ClassVar = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}", re.ASCII)

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, str) or not cls.FORM.fullmatch(value):
            raise UnfitError(cls.EXPECTED)
        return cls(value)
