"""What shards say to the operator's commands, made up for tests that need no processes.

    wanted = cluster(2, version=3)
    shards = told(wanted, shard1=[(7, FULL, 1, 2, 3)], shard2=None)   # slice, state, torrents, leechers, seeders

A shard that tells nothing is silent.
"""

import json

from cluster import status
from common import config
from common.ring import ring_of

NONE, PART, LEAVING, FULL = range(4)
FIGURES = ("slice", "state", "torrents", "leechers", "seeders")


def cluster(shards=2, weights=None, more=(), **settings):
    """A configuration of shards `shard1`, ... with links. weights: by number; more: names of other shards."""
    names = [f"shard{number}" for number in range(1, shards + 1)] + list(more)
    made = [
        {"name": name, "link": f"tcp://127.0.0.1:{7100 + int(name[5:])}", "weight": (weights or {}).get(name, 1)}
        for name in names
    ]
    gateways = [{"name": "gateway1", "listen": ["127.0.0.1:6969"]}]
    return config.read({"gateways": gateways, "shards": made, "data": "/nowhere", **settings})


def held(*rows):
    """What a shard says that it holds."""
    return {name: [row[at] for row in rows] for at, name in enumerate(FIGURES)}


def owned(wanted, name, torrents=1, leechers=2, seeders=3, state=FULL):
    """Rows of all slices that a shard should hold."""
    ring = ring_of(wanted)
    return [(slice_id, state, torrents, leechers, seeders) for slice_id in ring.held_by(ring.names.index(name))]


def told(wanted, by=None, /, **rows):
    """What all shards of a configuration say, by which they run, or by another one. A dict says more than rows."""
    ring = ring_of(by or wanted)
    found = []
    for at, shard in enumerate(wanted.shards):
        said = rows.get(str(shard.name))
        if said is None:
            found.append(status.shard_of(wanted, at, None, "no answer", 0))
            continue
        more = said if isinstance(said, dict) else {"rows": said}
        found.append(status.shard_of(wanted, at, hear(said_by(by or wanted, ring, **more)), "", 1))
    return found


def said_by(wanted, ring, rows=(), **more):
    """The answer to STATUS."""
    figures = {name: sum(row[at + 2] for row in rows) for at, name in enumerate(FIGURES[2:])}
    states = [row[1] for row in rows]
    counts = {name: states.count(state) for name, state in (("full", FULL), ("part", PART), ("leaving", LEAVING))}
    return {
        **figures,
        "ok": True,
        "config_version": wanted.version,
        "table": f"{ring.digest():016x}",
        "slices": {**counts, "wanted": 0},
        "memory": {"taken": 1 << 20, "ceiling": 1 << 24},
        "held": held(*rows),
        "links": [],
        "peers": [],
        **more,
    }


def hear(said):
    """What is taken of an answer to STATUS."""
    question = status.Question()
    question.hear(memoryview(question.begin() + json.dumps(said).encode()))
    return question.said
