"""Simulate many clusters, each by a seed: `make simulate N=200000`.

    make simulate [N=2000] [ARGS="--first SEED --processes P"]
    make simulate ARGS="--seed SEED --shrink"

A seed that breaks a promise is printed; the second form replays it, and makes its plan smaller. At the end it says how
often each mechanism occurred, and fails if one is rare. Exit status 1: a promise was broken, or a mechanism is rare.
"""

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed

from plans import draw, run, shrink

MOST_SHOWN = 20
PIECE = 50  # seeds that a process is given at once
# What every run must have, and in how many of a thousand schedules at least, on average.
RARE = {
    "announce": 50_000,
    "acknowledged": 40_000,
    "announce again": 2000,
    "announce shed": 1000,
    "announce without answer": 100,
    "burst": 100,
    "clean stop": 100,
    "copies: chunks": 10_000,
    "copies: dropped": 1000,
    "copies: empty": 1000,
    "copies: merged": 5000,
    "copies: pulls": 10_000,
    "copy without room": 300,
    "crash of a gateway": 50,
    "crash of a shard": 100,
    "cut both ways": 100,
    "cut one way": 100,
    "delivered to a successor": 20,
    "edit": 1000,
    "edit that adds a shard": 200,
    "edit that changes replicas": 100,
    "edit that drains a shard": 200,
    "edit that removes a shard": 10,
    "edit that takes another back": 100,
    "empty answer": 100,
    "frame not taken: other_boot": 100,
    "frame not taken: too_old": 100,
    "frame that is a copy": 10_000,
    "full answer without fault": 3000,
    "late pong": 500,
    "new connection": 10,
    "pause": 300,
    "peer expired": 100,
    "peer that must not be lost": 10_000,
    "pull begun again": 5,
    "record for a slice of which there was nothing": 100,
    "reply lost": 300,
    "reply not taken: other_boot": 50,
    "reply not taken: too_old": 10,
    "reset": 100,
    "shard that ended by itself": 100,
    "shard that the file lacks": 100,
    "slow way": 100,
    "snapshot restored": 100,
    "stall of a gateway": 20,
    "stall of a shard": 20,
}


def simulate(first, many):
    """Schedules by their seeds: how often each mechanism occurred, the longest queue, and what was broken."""
    counts = Counter()
    queue = 0
    broken = []
    for seed in range(first, first + many):
        cluster, violations = run(draw(seed))
        counts.update(cluster.world.counts)
        queue = max(queue, cluster.world.longest_queue)
        broken += [(seed, violations[0])] if violations else []
    return counts, queue, broken


def simulate_all(first, many, processes, tell=print):
    """The same in several processes."""
    total, longest, broken, done = Counter(), 0, [], 0
    began = told = time.monotonic()
    with ProcessPoolExecutor(processes) as pool:
        pieces = [pool.submit(simulate, at, min(PIECE, first + many - at)) for at in range(first, first + many, PIECE)]
        for piece in as_completed(pieces):
            counts, queue, found = piece.result()
            total.update(counts)
            longest = max(longest, queue)
            for seed, what in found:
                tell(f"seed {seed}: {what}")
            broken += found
            done += PIECE
            if time.monotonic() - told > 60:
                told = time.monotonic()
                tell(f"{min(done, many):,} of {many:,} schedules in {told - began:.0f} s, {len(broken)} broken")
            if len(broken) >= MOST_SHOWN:
                pool.shutdown(cancel_futures=True)
                break
    return total, longest, broken


def rare(counts, many):
    """The mechanisms that occurred less often than they should, as lines."""
    wanted = {name: per_thousand * many // 1000 for name, per_thousand in RARE.items()}
    found = [name for name, least in wanted.items() if counts[name] < least]
    return [f"rare: {name}: {counts[name]:,}, not {wanted[name]:,}" for name in found]


def replay(seed, smaller):
    """One schedule again, and if asked for the smallest that fails like it."""
    plan = draw(seed)
    _, violations = run(plan)
    print(*(violations or ["every promise is kept"]), sep="\n")
    if violations and smaller:
        kind = violations[0].split(": ")[1]
        plan = shrink(plan, lambda other: any(kind in what for what in run(other)[1]))
        print(f"{plan.kind}, {plan.replicas} replicas, lifetime {plan.lifetime} s, {dict(plan.weights)}")
        print(*plan.events, sep="\n")
    return 1 if violations else 0


def main(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("many", type=int, nargs="?", default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--shrink", action="store_true")
    args = parser.parse_args(words)
    if args.seed is not None:
        return replay(args.seed, args.shrink)
    began = time.monotonic()
    counts, queue, broken = simulate_all(args.first, args.many, args.processes)
    for name in sorted({*counts, *RARE}):
        print(f"{counts[name]:>14,}  {name}")
    lines = rare(counts, args.many)
    print(*lines, sep="\n")
    seconds = time.monotonic() - began
    print(f"{args.many:,} schedules in {seconds:.0f} s, longest queue {queue} frames: {len(broken)} broke a promise")
    return 1 if broken or lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
