"""`cluster.yaml` in checked, typed structs; `Config()` is the embedded default.

Whatever is wrong with a file becomes one `ConfigError`, which says where, what was expected and what was found.
docs/config.md explains every field.
"""

import os
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from common import config_errors, yaml_file
from common.config_errors import ConfigError
from common.values import Endpoint, Name, Network, Seconds, Size, UnfitError, Word

__all__ = ["Config", "ConfigError", "decode", "encode", "load", "read"]


class Interval(Seconds, least="60 s", most="2h30m"):
    """Between two announces of a peer; an age has 14 bits of seconds."""


class Window(Seconds, least="60 s", most="1d"):
    """One window of connection ids."""


class Figures(Seconds, least="0 s", most="1d"):
    """Between two lines of figures; 0 is never."""


class Memory(Size, least="16 MiB", most="31 GiB"):
    """What a store may allocate; its offsets end at 32 GiB."""


class Level(Word, words="debug info warning error"):
    """The least severe log line that is written."""


class Format(Word, words="auto human json"):
    """How a log line is written; auto is human on a terminal, else json."""


Rate = Annotated[int, Meta(ge=1, le=100_000)]
Burst = Annotated[int, Meta(ge=1, le=10_000_000)]
Networks = Annotated[tuple[Network, ...], Meta(max_length=64)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A mapping of the file: unknown keys are refused, nothing changes after loading."""


class Gateway(Section, frozen=True):
    """A process that speaks the tracker protocols."""

    name: Name
    listen: Annotated[tuple[Endpoint, ...], Meta(min_length=1, max_length=64)] = (
        Endpoint("0.0.0.0:6969"),
        Endpoint("[::]:6969"),
    )


class Shard(Section, frozen=True):
    """A process that keeps swarms."""

    name: Name
    memory: Memory = Memory(1 << 30)
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0


class Peers(Section, frozen=True):
    """How many peers an answer carries."""

    default: Annotated[int, Meta(ge=1, le=200)] = 50
    most: Annotated[int, Meta(ge=1, le=200)] = 200


class Bucket(Section, frozen=True):
    """A token bucket of one source: requests a second, and how many may come at once."""

    rate: Rate
    burst: Burst


class ConnectBucket(Bucket, frozen=True):
    """The bucket of connect requests."""

    rate: Rate = 20
    burst: Burst = 60


class RequestBucket(Bucket, frozen=True):
    """The bucket of announces and scrapes."""

    rate: Rate = 50
    burst: Burst = 300


class Limits(Section, frozen=True):
    """What one source may ask, and what all errors together may cost."""

    connects: ConnectBucket = ConnectBucket()
    requests: RequestBucket = RequestBucket()
    errors: Rate = 1000  # error answers a second, to all together
    new_swarms: Annotated[int, Meta(ge=1, le=65_535)] = 60  # a source and minute
    entries: Burst = 5000  # stored peers of a source
    exempt: Networks = (Network("127.0.0.0/8"), Network("::1/128"))


class Idle(Seconds, least="5 s", most="10m"):
    """How long a kept HTTP connection may ask nothing."""


class Http(Section, frozen=True):
    """HTTP's connections: how many in all, how many of one source, and how long they may be idle."""

    connections: Annotated[int, Meta(ge=16, le=100_000)] = 8192
    per_source: Annotated[int, Meta(ge=1, le=100_000)] = 128
    idle: Idle = Idle(30)


class ConnectionIds(Section, frozen=True):
    """How long a connection id is good: `windows` to `windows` + 1 times `window`."""

    window: Window = Window(600)
    windows: Annotated[int, Meta(ge=1, le=200)] = 6
    answer_invalid: bool = True


class Log(Section, frozen=True):
    """What is logged, and how."""

    level: Level = Level("info")
    format: Format = Format("auto")
    addresses: bool = False  # client addresses and info-hashes
    figures: Figures = Figures(60)


def default_data() -> Path:
    """The directory of key files when the file names none."""
    if state := os.environ.get("STATE_DIRECTORY"):  # set by systemd, a list when the unit has several
        return Path(state.split(":")[0])
    if os.path.isabs(state := os.environ.get("XDG_STATE_HOME", "")):
        return Path(state) / "shoal"
    return Path(os.path.expanduser("~")) / ".local/state/shoal"


class Config(Section, frozen=True):
    """The whole file."""

    version: Annotated[int, Meta(ge=1, le=(1 << 63) - 1)] = 1
    slices: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    interval: Interval = Interval(1800)
    data: Path = field(default_factory=default_data)
    gateways: tuple[Gateway, ...] = (Gateway(name=Name("gateway1")),)
    shards: tuple[Shard, ...] = (Shard(name=Name("shard1")),)
    peers: Peers = Peers()
    limits: Limits = Limits()
    connection_ids: ConnectionIds = ConnectionIds()
    http: Http = Http()
    trust_ip_field: Networks = ()
    trusted_proxies: Networks = ()
    admin: Endpoint | None = Endpoint("127.0.0.1:6970")
    log: Log = Log()

    @property
    def lifetime(self) -> int:
        """Seconds after its last announce for which a peer is listed."""
        # One and a half times the longest interval that is handed out, which is 10 % over the nominal one.
        return -(-self.interval * 165 // 100) + 300


def load(path: Path | str) -> Config:
    """The configuration in a file. Raises ConfigError, which names the file."""
    try:
        return read(yaml_file.load(Path(path)))
    except ConfigError as error:
        error.file = str(path)
        raise


def read(document: object) -> Config:
    """The configuration that a parsed document means; None, an empty file, is the default. Raises ConfigError."""
    document = {} if document is None else document
    try:
        config = msgspec.convert(document, Config, dec_hook=_read_value)
    except msgspec.ValidationError as error:
        raise config_errors.explain(error, document, Config) from None
    _check_values(config)
    _check_names(config)
    _check_endpoints(config)
    _check_one_process(config)
    return config


def encode(config: Config) -> bytes:
    """The configuration as JSON, for another process of this version."""
    return msgspec.json.encode(config, enc_hook=_write_value)


def decode(blob: bytes) -> Config:
    """What `encode` was given. Raises ConfigError."""
    return read(msgspec.json.decode(blob))


def _read_value(kind: Any, value: object) -> Any:
    if kind is Path:
        return _read_directory(value)
    return kind.read(value)


def _write_value(value: object) -> int | str:
    return int(value) if isinstance(value, int) else str(value)


def _read_directory(value: object) -> Path:
    path = Path(os.path.expanduser(value)) if isinstance(value, str) and "\0" not in value else None
    if path is None or not path.is_absolute():
        raise UnfitError("a directory, as a path that begins with / or ~")
    return path


def _check_values(config: Config) -> None:
    if not config.data.is_absolute():  # the default, of a user without a home
        raise ConfigError("data", "a directory, as a path that begins with /", repr(str(config.data)))
    if config.slices & (config.slices - 1):
        raise ConfigError("slices", "a power of two from 1 to 65536", str(config.slices))
    if config.peers.default > config.peers.most:
        raise ConfigError(
            "peers.default", f"at most peers.most, which is {config.peers.most}", str(config.peers.default)
        )


def _check_names(config: Config) -> None:
    first: dict[str, str] = {}
    everything: list[tuple[str, tuple[Gateway | Shard, ...]]] = [
        ("gateways", config.gateways),
        ("shards", config.shards),
    ]
    for kind, processes in everything:
        for index, process in enumerate(processes):
            where = f"{kind}[{index}].name"
            if process.name in first:
                raise ConfigError(
                    where, f"a name that is not taken, as by {first[process.name]}", repr(str(process.name))
                )
            first[process.name] = where


def _check_endpoints(config: Config) -> None:
    listening = [
        (f"gateways[{at}].listen[{index}]", endpoint)
        for at, gateway in enumerate(config.gateways)
        for index, endpoint in enumerate(gateway.listen)
    ]
    for (taken_at, taken), (where, endpoint) in combinations(listening, 2):
        if endpoint.clashes(taken):
            raise ConfigError(where, f"a port that is not taken, as by {taken_at} ({taken})", endpoint)
    for taken_at, taken in listening:
        if config.admin is not None and config.admin.clashes(taken):
            raise ConfigError("admin", f"another port than that of {taken_at}, where HTTP is served", config.admin)


def _check_one_process(config: Config) -> None:
    for where, processes in (("gateways", config.gateways), ("shards", config.shards)):
        if len(processes) != 1:
            expected = "exactly one: this version runs one gateway and one shard in one process"
            raise ConfigError(where, expected, str(len(processes)))
