"""`shoal status`: how a whole cluster is, by what its shards say and by what gateways told them in their pings."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from cluster import asking, health, held
from cluster.health import SilentError
from cluster.reports import OF_GATEWAY, OF_SHARD, fit
from common import control, frames
from common.control import FrameError
from common.life import milliseconds
from common.link_state import SILENT
from common.ring import ring_of

if TYPE_CHECKING:
    from common.config import Config
    from common.ring import Ring

Document = dict[str, Any]
RATES = ("answers_per_s", "refusals_per_s")


class Question:
    """How is a shard, and what has it of each slice? The answer is a JSON document."""

    def __init__(self) -> None:
        self.said: Document | None = None
        self.asked = 0
        self.round_trip = 0
        self.done = False

    def begin(self) -> bytes:
        """The question."""
        self.asked = milliseconds()
        return control.HEADER.pack(frames.VERSION, frames.STATUS, 1, 1, 0, 0)

    def hear(self, frame: memoryview) -> None:
        """The answer. Raises FrameError."""
        if control.header(frame).kind != frames.STATUS:
            raise FrameError("not a status")
        try:
            said = json.loads(bytes(frame[frames.HEADER :]))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise FrameError("a status that is not JSON")
        self.said = fit(said, OF_SHARD)
        self.round_trip = milliseconds() - self.asked
        self.done = True


def look_at(config: Config, node: str | None, timeout: float) -> Document:
    """How the cluster is, or the embedded tracker. Raises ConfigError, KeyFileError."""
    return look_embedded(config, timeout) if config.is_embedded else look(config, node, timeout)


def look(config: Config, node: str | None, timeout: float) -> Document:
    """How the cluster is. Raises ConfigError, KeyFileError."""
    return describe(config, ask(config, node, timeout))


def ask(config: Config, node: str | None, timeout: float) -> list[Document]:
    """What each shard says of itself. Raises ConfigError, KeyFileError."""
    talks = [Question() for _ in config.shards]
    whys = asking.talk_to_shards(config, asking.key_of(config, node), talks, timeout)
    return [
        shard_of(config, at, talk.said, why, talk.round_trip)
        for at, (talk, why) in enumerate(zip(talks, whys, strict=True))
    ]


def shard_of(config: Config, at: int, said: Document | None, why: str, round_trip: int) -> Document:
    """A shard, by what it said of itself, or by why it said nothing."""
    shard = config.shards[at]
    known: Document = {"name": str(shard.name), "node": config.node_of(shard), "link": config.link_of(shard)}
    if said is None:
        return {**known, "state": "silent", "why": why}
    state = "unwell" if not said.get("ok", True) else "stopping" if said.get("stopping") else "up"
    return {**said, **known, "state": state, "asked_ms": round_trip}


def describe(config: Config, shards: list[Document]) -> Document:
    """The whole document, of what each shard said."""
    heard = [shard for shard in shards if shard["state"] != "silent"]
    gateways = [gateway_of(config, heard, at) for at in range(len(config.gateways))]
    ring = ring_of(config)
    file = file_of(config)
    totals = totals_of(config, ring, shards)
    totals |= {name: sum(gateway.get(name, 0) for gateway in gateways) for name in RATES}
    problems = problems_of(shards, gateways, file, config.node_names())
    return {
        "ok": not problems,
        "problems": problems,
        "moving": moving(shards, gateways),
        "config": file,
        "nodes": [
            {"name": node, "processes": [str(one.name) for one in config.on_node(node)]} for node in config.node_names()
        ],
        "totals": totals,
        "gateways": gateways,
        "shards": [{name: value for name, value in shard.items() if name != "held"} for shard in shards],
    }


def file_of(config: Config) -> Document:
    """What processes must agree on."""
    return {"version": config.version, "table": f"{ring_of(config).digest():016x}", "slices": config.slices}


def totals_of(config: Config, ring: Ring, shards: list[Document]) -> dict[str, int]:
    """What all shards have; of several copies of a slice the largest counts, and all that are in the wrong place."""
    copies = [held.copies_of(shard, config.slices) for shard in shards]
    totals = held.total(held.largest(each for each in copies if each is not None).values())
    for shard, known in zip(shards, copies, strict=True):
        if known is None:  # silent, or of another version
            totals = {name: count + shard.get(name, 0) for name, count in totals.items()}
    misplaced = [held.elsewhere(known, ring, at) for at, known in enumerate(copies) if known is not None]
    return {
        **totals,
        "elsewhere": sum(copy.torrents for each in misplaced for copy in each.values()),
        "announces_per_s": sum(shard.get("announces_per_s", 0) for shard in shards),
    }


def gateway_of(config: Config, heard: list[Document], at: int) -> Document:
    """A gateway, as the shard knows it that heard it last."""
    gateway = config.gateways[at]
    known: Document = {"name": str(gateway.name), "node": config.node_of(gateway), "listen": list(gateway.listen)}
    told = {str(shard["name"]): freshest(shard, gateway.name) for shard in heard}
    pings = [ping for ping in told.values() if ping is not None]
    if not pings:
        # Shards forget who has not pinged for a minute.
        return {**known, "state": "silent" if heard else "unknown", "heard_ms": None, "heard_by": []}
    ping = min(pings, key=lambda one: int(one["heard_ms"]))
    return {
        **fit(ping["report"], OF_GATEWAY),
        **known,
        "state": "up" if is_heard(ping) else "silent",
        "heard_ms": ping["heard_ms"],
        "heard_by": [name for name, one in told.items() if is_heard(one)],
        **{field: ping[field] for field in ("boot", "config_version", "table")},
    }


def freshest(shard: Document, name: str) -> Document | None:
    """What a shard knows of a gateway, by its last ping; those of earlier lives may be there too."""
    pings = [peer for peer in shard.get("peers", ()) if (peer["role"], peer["name"]) == ("gateway", name)]
    return min(pings, key=lambda peer: int(peer["heard_ms"]), default=None)


def is_heard(ping: Document | None) -> bool:
    """Whether who pinged is not silent."""
    return ping is not None and int(ping["heard_ms"]) <= SILENT


# What is on the move


def moving(shards: list[Document], gateways: list[Document]) -> list[str]:
    """Which shards fill slices from others, and which have slices that are to leave, a line each."""
    lines = []
    for shard in shards:
        left, of = to_fill(shard)
        if left:
            lines.append(f"{shard['name']} fills its slices from other shards: {of - left:,} of {of:,} so far")
        if count := to_leave(shard):
            what = "a slice that leaves" if count == 1 else f"{count:,} slices that leave"
            lines.append(f"{shard['name']} has {what} it a minute after others have all of it")
    return lines + tell_departing(shards, gateways)


def to_fill(shard: Document) -> tuple[int, int]:
    """How many slices a shard has still to fill, and how many there were."""
    fill = shard["copies"]["fill"] if "copies" in shard else {"left": 0, "of": 0}
    return fill["left"], max(fill["of"], fill["left"])


def to_leave(shard: Document) -> int:
    """How many slices a shard has that it should not have: those that leave, and parts that are no part of a fill."""
    slices = shard.get("slices", {"leaving": 0, "part": 0})
    return int(slices["leaving"] + max(0, slices["part"] - to_fill(shard)[0]))


def departing(shards: list[Document], gateways: list[Document]) -> dict[str, bool]:
    """Shards that the file lacks and others link to, as they showed that they have something; whether one hears them.

    A silent one is forgotten after five minutes.
    """
    names = {shard["name"] for shard in shards}
    links = [link for one in (*shards, *gateways) for link in one.get("links", ()) if link["shard"] not in names]
    heard = {link["shard"] for link in links if not link["silent"]}
    return {name: name in heard for name in sorted({link["shard"] for link in links})}


def tell_departing(shards: list[Document], gateways: list[Document]) -> list[str]:
    """The same as lines."""
    does = {True: "it hands over what it has, or the file is old", False: "it is silent, and had something"}
    return [f"{name} is not in the file here: {does[heard]}" for name, heard in departing(shards, gateways).items()]


# What is wrong


def problems_of(shards: list[Document], gateways: list[Document], file: Document, nodes: list[str]) -> list[str]:
    """What is not as it should be, a line each."""
    everyone = [*gateways, *shards]
    silent = {one["name"] for one in everyone if one["state"] in ("silent", "unknown")}
    silent |= departing(shards, gateways).keys()  # these are no fault
    lines = []
    for node in nodes:
        names = {one["name"] for one in everyone if one["node"] == node}
        if node and names and names <= silent:
            lines.append(f"{node}: nothing of this node is heard")
    for one in everyone:
        lines += wrong_with(one, file)
    for gateway in gateways:
        if gateway["name"] not in silent and gateway["config_version"] == file["version"]:  # else it may know others
            deaf = [shard["name"] for shard in shards if shard["name"] not in silent | set(gateway["heard_by"])]
            lines += [f"{shard} does not hear {gateway['name']}" for shard in deaf]
    for one in everyone:
        if one["name"] not in silent:
            lines += [line for link in one.get("links", ()) if (line := wrong_with_link(one, link, silent))]
    return lines + strangers(shards, {gateway["name"] for gateway in gateways})


def wrong_with(one: Document, file: Document) -> list[str]:
    """What is wrong with one process."""
    name, state = one["name"], one["state"]
    if state == "unknown":
        return [f"{name}: not known, as no shard is heard"]
    if state == "silent":
        return [f"{name}: silent: {one.get('why') or last_heard(one['heard_ms'])}"]
    lines = []
    if state == "unwell":
        lines.append(f"{name}: {health.unwell(one)}")
    if one.get("nonsense"):
        lines.append(f"{name}: what it says of {', '.join(one['nonsense'])} makes no sense here")
    if one.get("stopping"):
        lines.append(f"{name}: stopping")
    if one.get("config_refused"):
        lines.append(f"{name}: does not take up the file: {one['config_refused']}")
    version = one.get("config_version")
    if version != file["version"]:
        lines.append(f"{name}: has version {version} of the configuration; the file here is version {file['version']}")
    elif one.get("table") != file["table"]:
        lines.append(f"{name}: other shards or weights in its configuration of the same version {version}")
    return lines


def last_heard(heard_ms: int | None) -> str:
    """When a gateway was heard."""
    return "no shard has heard of it in the last minute" if heard_ms is None else f"heard last {heard_ms // 1000} s ago"


def wrong_with_link(one: Document, link: Document, silent: set[str]) -> str:
    """What is wrong with a link, as who made it has it; nothing if the shard is silent for all."""
    if link["refused"]:
        return f"{one['name']} refuses what {link['shard']} says: {link['refused']}"
    return f"{one['name']} does not hear {link['shard']}" if link["silent"] and link["shard"] not in silent else ""


def strangers(shards: list[Document], known: set[str]) -> list[str]:
    """Gateways that ping and that the file does not name."""
    found: dict[str, list[str]] = {}
    for shard in shards:
        for peer in shard.get("peers", ()):
            if peer["role"] == "gateway" and peer["name"] not in known and is_heard(peer):
                found.setdefault(peer["name"], []).append(shard["name"])
    return [f"{name}: not in the file, but pings {', '.join(by)}" for name, by in found.items()]


# The embedded tracker


def look_embedded(config: Config, timeout: float) -> Document:
    """How the embedded tracker is, by its admin address. Raises ConfigError if it has none."""
    admin = health.admin_of(config, config.gateways[0])
    name = str(config.gateways[0].name)
    document: Document = {"ok": False, "problems": [], "embedded": True, "admin": str(admin)}
    if wrong := health.fault(config.gateways[0], admin, timeout):
        document["problems"].append(wrong)
    try:
        figures = figures_of(health.get(admin, "/metrics", timeout).decode())
    except (SilentError, ValueError, OverflowError) as error:
        if not wrong:
            document["problems"].append(f"{name}: no metrics at {admin}: {error}")
        return {**document, "state": "silent"}
    state = "unwell" if wrong else "up"
    return {**document, "ok": not wrong, "state": state, **figures}


def figures_of(text: str) -> Document:
    """The figures of `status` from a page of metrics. Raises ValueError."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            role = f" {sample.labels['role']}" if "role" in sample.labels else ""
            sums[sample.name + role] = sums.get(sample.name + role, 0) + sample.value
    if "shoal_store_bytes" not in sums:
        raise ValueError("it is a process of a cluster, whose file --config names")
    names = {
        "torrents": "shoal_torrents",
        "seeders": "shoal_peers seeder",
        "leechers": "shoal_peers leecher",
        "announces": "shoal_announces_total",
        "refusals": "shoal_refusals_total",
        "connections": "shoal_http_open",
        "resident": "process_resident_memory_bytes",
    }
    memory = {"taken": sums.get("shoal_store_bytes", 0), "ceiling": sums.get("shoal_store_ceiling_bytes", 0)}
    uptime = max(0, round(time.time() - sums.get("process_start_time_seconds", time.time())))
    return {
        "uptime_s": uptime,
        **{name: int(sums.get(metric, 0)) for name, metric in names.items()},
        "memory": {name: int(value) for name, value in memory.items()},
    }
