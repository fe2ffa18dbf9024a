"""KERNEL: which shard is asked for each slice: what pongs say and the ring's order, made into one flat table."""

import cython

u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])
Shorts = cython.typedef(cython.const[cython.ushort][::1])


def choose(order: Shorts, states: View, usable: View, nobody: u32, table: u16[::1]) -> int:
    """Write the answerer of each slice: of the usable shards that with the best state, of equals the first in order.

    order: for each slice the shards as the ring has them. states: for each shard 2 bits a slice, in whole bytes.
    usable: for each shard, whether it may be asked. nobody: what stands for no shard at all. Returns how many
    slices have another answerer than before. Raises ValueError if lengths do not agree.
    """
    shards: size = len(usable)
    slices: size = len(table)
    row: size = (slices + 3) // 4
    s: size
    i: size
    shard: size
    state: u32
    best: u32
    found: size
    changes: size = 0
    if len(order) != slices * shards or len(states) != shards * row:
        raise ValueError("a place in the order and a state for each shard and slice")
    for s in range(slices):
        best = 0
        found = nobody
        for i in range(shards):
            shard = order[s * shards + i]
            if shard >= shards:
                raise ValueError("no such shard")
            if usable[shard] == 0:
                continue
            state = 1 + (states[shard * row + (s >> 2)] >> (2 * (s & 3)) & 3)
            if state > best:
                best = state
                found = shard
        if table[s] != found:
            table[s] = found
            changes += 1
    return changes
