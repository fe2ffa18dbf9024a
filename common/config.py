"""`cluster.yaml` in checked, typed structs; `Config()` is the embedded default.

Whatever is wrong with a file becomes one `ConfigError`, which says where, what was expected and what was found.
docs/config.md explains every field.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from common import config_checks, config_errors, yaml_file
from common.config_errors import ConfigError
from common.values import Endpoint, LinkAddress, Name, Network, PublicKey, Seconds, Size, UnfitError, Word

__all__ = ["Config", "ConfigError", "Gateway", "Node", "Shard", "decode", "encode", "load", "read"]


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


class Node(Section, frozen=True):
    """A machine. Its processes prove themselves by the secret of its public key."""

    name: Name
    key: PublicKey | None = None


class Gateway(Section, frozen=True):
    """A process that speaks the tracker protocols."""

    name: Name
    node: Name | None = None  # may be left out while there is but one
    listen: Annotated[tuple[Endpoint, ...], Meta(min_length=1, max_length=64)] = (
        Endpoint("0.0.0.0:6969"),
        Endpoint("[::]:6969"),
    )


class Shard(Section, frozen=True):
    """A process that keeps swarms. Others reach it at `link`; it listens there, or at `bind`."""

    name: Name
    node: Name | None = None
    link: LinkAddress | None = None
    bind: LinkAddress | None = None
    memory: Memory = Memory(1 << 30)
    weight: Annotated[float, Meta(ge=0, le=100)] = 1.0  # of the ring's points, which cost time and memory


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
    keys: Path | None = None  # `load` fills it in
    user: Name | None = None
    nodes: tuple[Node, ...] = ()
    insecure: bool = False
    gateways: tuple[Gateway, ...] = (Gateway(name=Name("gateway1")),)
    shards: tuple[Shard, ...] = (Shard(name=Name("shard1")),)
    replicas: Annotated[int, Meta(ge=0, le=7)] = 0
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

    @property
    def key_directory(self) -> Path:
        """Where the key files are."""
        return self.keys or self.data

    @property
    def is_embedded(self) -> bool:
        """Whether one process is all there is: one gateway, one shard on its node, and no way to link to it."""
        (gateway, *gateways), (shard, *shards) = self.gateways, self.shards
        return not gateways and not shards and shard.link is None and self.node_of(gateway) == self.node_of(shard)

    @property
    def has_keys(self) -> bool:
        """Whether `tcp://` links are encrypted."""
        return any(node.key is not None for node in self.nodes)

    def node_of(self, process: "Gateway | Shard") -> str:
        """The name of a process's node; empty if nodes have no names."""
        return process.node or (self.nodes[0].name if self.nodes else "")

    def node_names(self) -> list[str]:
        """The nodes; one without a name if the file names none."""
        return [node.name for node in self.nodes] or [""]

    def on_node(self, node: str) -> "list[Gateway | Shard]":
        """The processes of a node, gateways first."""
        everyone: list[Gateway | Shard] = [*self.gateways, *self.shards]
        return [process for process in everyone if self.node_of(process) == node]

    def link_of(self, shard: "Shard") -> str:
        """Where others reach a shard."""
        return shard.link or f"ipc://{self.run_directory}/{shard.name}"

    def bind_of(self, shard: "Shard") -> str:
        """Where a shard listens for links."""
        return shard.bind or self.link_of(shard)

    @property
    def run_directory(self) -> Path:
        """Where the sockets of `ipc://` links are."""
        return self.data / "run"

    def admin_of(self, process: "Gateway | Shard") -> Endpoint | None:
        """A process's admin address: those of a node have ports that follow each other."""
        if self.admin is None:
            return None
        if self.is_embedded or self.admin.port == 0:
            return self.admin
        return self.admin.plus(self.on_node(self.node_of(process)).index(process))


def load(path: Path | str, *, keyed: bool = True) -> Config:
    """The configuration in a file; `keyed` as `read` has it. Raises ConfigError, which names the file."""
    try:
        config = read(yaml_file.load(Path(path)), keyed=keyed)
    except ConfigError as error:
        error.file = str(path)
        raise
    if config.keys is None and len(config.nodes) > 1:
        # Beside the file: what is copied from node to node, and may not be committed with it.
        config = msgspec.structs.replace(config, keys=Path(path).absolute().parent / "keys")
    return config


def read(document: object, *, keyed: bool = True) -> Config:
    """The configuration that a parsed document means; None, an empty file, is the default. Raises ConfigError.

    keyed: whether the nodes must have the keys that their links need; not for who is about to make them.
    """
    document = {} if document is None else document
    try:
        config = msgspec.convert(document, Config, dec_hook=_read_value)
    except msgspec.ValidationError as error:
        raise config_errors.explain(error, document, Config) from None
    config_checks.check(config, keyed=keyed)
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
