# What the slice store may see of a swarm's peers, and the types of the leaves.

cimport cython
from shard.arena cimport Arena


@cython.final
cdef class Peers:
    cdef Arena arena
    cdef unsigned char[::1] raw
    cdef unsigned short[::1] words
    cdef unsigned int lifetime
    cdef unsigned long long secret
    cdef unsigned long long random
    cdef unsigned long long[::1] totals
    cdef unsigned int[::1] entries
    cdef Py_ssize_t[::1] at
    cdef Py_ssize_t[::1] owner
    cdef Py_ssize_t groups
    cdef unsigned int seeders
    cdef unsigned int leechers
    cdef unsigned short[::1] peer
    cdef unsigned int kind
    cdef Py_ssize_t stride
    cdef unsigned int hash
    cdef Py_ssize_t hit_group
    cdef Py_ssize_t hit_block
    cdef Py_ssize_t hit_index
    cdef Py_ssize_t hit_meta
    cdef bint hit_seeder
    cdef Py_ssize_t deepest
    cdef unsigned long long expired
    cdef Py_ssize_t chained
    cdef Py_ssize_t list_stride
    cdef unsigned int resume_kind
    cdef unsigned int resume_key

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void set32(self, Py_ssize_t at, unsigned int value) noexcept nogil
    cdef void move_words(self, Py_ssize_t to, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef void send(self, unsigned char[::1] out, Py_ssize_t to, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef Py_ssize_t draw(self, Py_ssize_t below) noexcept nogil
    cdef void walk(self, Py_ssize_t slot) noexcept nogil
    cdef void take_peer(self, const unsigned char[::1] source, Py_ssize_t at, unsigned int kind) noexcept nogil
    cdef unsigned int entries_of_source(self) noexcept nogil
    cdef void count_peer(self, unsigned int seeder, bint more) noexcept nogil
    cdef Py_ssize_t block_of(self, Py_ssize_t g, unsigned int key) noexcept nogil
    cdef Py_ssize_t index_in(self, Py_ssize_t p) noexcept nogil
    cdef bint find(self, unsigned int seeder) noexcept nogil
    cdef bint _find_among(self, unsigned int mask, unsigned int roles) noexcept nogil
    cdef Py_ssize_t meta_at(self, Py_ssize_t p, Py_ssize_t index, Py_ssize_t stride) noexcept nogil
    cdef bint insert(self, Py_ssize_t slot, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef Py_ssize_t _group_for(self, unsigned int seeder) noexcept nogil
    cdef bint _add_group(self, unsigned int seeder) noexcept nogil
    cdef Py_ssize_t _flat_granules(self, Py_ssize_t head, unsigned int kind, Py_ssize_t room) noexcept nogil
    cdef Py_ssize_t _block_granules(self, Py_ssize_t stride, Py_ssize_t room) noexcept nogil
    cdef Py_ssize_t group_granules(self, Py_ssize_t i) noexcept nogil
    cdef bint _set_flat(self, Py_ssize_t i, unsigned int kind, Py_ssize_t room) noexcept nogil
    cdef void _put(self, Py_ssize_t p, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef void _copy_peer(self, Py_ssize_t p, Py_ssize_t to, Py_ssize_t start) noexcept nogil
    cdef bint _make_room(self, Py_ssize_t i, Py_ssize_t p) noexcept nogil
    cdef bint _part(self, Py_ssize_t i) noexcept nogil
    cdef bint _spread(self, Py_ssize_t i) noexcept nogil
    cdef void _point(self, Py_ssize_t g, unsigned int key, Py_ssize_t depth, unsigned int ref) noexcept nogil
    cdef bint _set_block(self, Py_ssize_t g, Py_ssize_t p, Py_ssize_t room) noexcept nogil
    cdef bint _split(self, Py_ssize_t i, Py_ssize_t p) noexcept nogil
    cdef void _deal(self, Py_ssize_t p, Py_ssize_t to, Py_ssize_t room, unsigned long long which, Py_ssize_t many, Py_ssize_t depth, Py_ssize_t role) noexcept nogil
    cdef bint _double(self, Py_ssize_t i) noexcept nogil
    cdef void halve(self, Py_ssize_t i, Py_ssize_t deepest) noexcept nogil
    cdef void remove_hit(self, Py_ssize_t slot) noexcept nogil
    cdef void _cut(self, Py_ssize_t p, Py_ssize_t index) noexcept nogil
    cdef void tidy(self, Py_ssize_t i, Py_ssize_t p) noexcept nogil
    cdef Py_ssize_t _join(self, Py_ssize_t g, Py_ssize_t p) noexcept nogil
    cdef void _dissolve(self, Py_ssize_t i) noexcept nogil
    cdef void _free_blocks(self, Py_ssize_t g) noexcept nogil
    cdef void _unchain(self, Py_ssize_t i) noexcept nogil
    cdef bint change_role(self, Py_ssize_t slot, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef void free_swarm(self) noexcept nogil
    cdef unsigned long long source(self) noexcept nogil
    cdef void add_partial(self, bint more) noexcept nogil
    cdef Py_ssize_t _sweep_block(self, Py_ssize_t g, Py_ssize_t p, unsigned int now) noexcept nogil
    cdef Py_ssize_t seek_group(self) noexcept nogil
    cdef void stop_at(self, Py_ssize_t i, unsigned long long key) noexcept nogil
    cdef unsigned long long key_after(self, Py_ssize_t g, Py_ssize_t p, unsigned int key) noexcept nogil
    cdef Py_ssize_t sweep(self, Py_ssize_t slot, unsigned int now, Py_ssize_t budget) noexcept nogil
    cdef Py_ssize_t list_peers(self, unsigned int kind, unsigned int seeder, Py_ssize_t want, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _listed_in(self, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t _list_group(self, Py_ssize_t i, Py_ssize_t want, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _list_block(self, Py_ssize_t p, Py_ssize_t many, Py_ssize_t want, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef void _send_run(self, Py_ssize_t p, Py_ssize_t start, Py_ssize_t end, Py_ssize_t own, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t dump(self, Py_ssize_t slot, unsigned int tag, unsigned int now, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _dump_block(self, Py_ssize_t g, Py_ssize_t p, unsigned int tag, unsigned int now, unsigned char[::1] out, Py_ssize_t to) noexcept nogil
    cdef unsigned int _hours_empty(self, unsigned int now) noexcept nogil
