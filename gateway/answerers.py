"""KERNEL: which shard is asked for each slice, and who gets copies: what pongs say and the ring's order, made flat."""

import cython

from common import frames

u16 = cython.typedef(cython.ushort)
u32 = cython.typedef(cython.uint)
size = cython.typedef(cython.Py_ssize_t)
View = cython.typedef(cython.const[cython.uchar][::1])
Shorts = cython.typedef(cython.const[cython.ushort][::1])


STATE_NONE = cython.declare(u32, frames.STATE_NONE)
STATE_LEAVING = cython.declare(u32, frames.STATE_LEAVING)
STATE_FULL = cython.declare(u32, frames.STATE_FULL)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def state_of(states: View, row: size, shard: size, s: size) -> u32:
    """What a shard has of a slice."""
    return states[shard * row + (s >> 2)] >> (2 * (s & 3)) & 3


def choose(
    order: Shorts,
    states: View,
    usable: View,
    members: size,
    nobody: u32,
    table: u16[::1],
    first: u32[::1],
    copies: u16[::1],
) -> int:
    """Write for each slice who is asked, into `table`, and who gets copies: copies[first[s]:first[s + 1]].

    Asked is, of the usable shards, that with the best state, of equals the first in order. Copies get all other
    usable ones that are full or part, and leaving ones while one of the first `members` in order is not full.

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
    whole: cython.bint
    many: u32 = 0
    changes: size = 0
    if len(order) != slices * shards or len(states) != shards * row:
        raise ValueError("a place in the order and a state for each shard and slice")
    if len(first) != slices + 1 or len(copies) < slices * shards or not 0 <= members <= shards:
        raise ValueError("no room for copies, or more members than shards")
    for s in range(slices * shards):
        if order[s] >= shards:
            raise ValueError("no such shard")
    for s in range(slices):
        best = 0
        found = nobody
        whole = True
        for i in range(shards):
            shard = order[s * shards + i]
            state = state_of(states, row, shard, s)
            if i < members and (usable[shard] == 0 or state != STATE_FULL):
                whole = False
            if usable[shard] != 0 and 1 + state > best:
                best = 1 + state
                found = shard
        if table[s] != found:
            table[s] = found
            changes += 1
        first[s] = many
        for i in range(shards):
            shard = order[s * shards + i]
            state = state_of(states, row, shard, s)
            if usable[shard] == 0 or shard == found or state == STATE_NONE or (state == STATE_LEAVING and whole):
                continue
            copies[many] = shard
            many += 1
    first[slices] = many
    return changes
