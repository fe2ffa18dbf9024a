# What other kernels may see of a swarm's peers, and the types of the leaves.

cimport cython
from shard.arena cimport Arena
from shard.directories cimport Directories


@cython.final
cdef class Peers:
    cdef Arena arena
    cdef Directories directories
    cdef unsigned short[::1] words
    cdef unsigned int lifetime
    cdef unsigned long long secret
    cdef unsigned long long[::1] totals
    cdef unsigned int[::1] entries
    cdef unsigned int[::1] held
    cdef Py_ssize_t slice_id
    cdef bint purging
    cdef Py_ssize_t[::1] at
    cdef Py_ssize_t[::1] owner
    cdef Py_ssize_t groups
    cdef unsigned int seeders
    cdef unsigned int leechers
    cdef unsigned short[::1] peer
    cdef unsigned char[::1] endpoint
    cdef unsigned int kind
    cdef Py_ssize_t stride
    cdef unsigned int hash
    cdef Py_ssize_t hit_group
    cdef Py_ssize_t hit_block
    cdef Py_ssize_t hit_index
    cdef Py_ssize_t hit_meta
    cdef bint hit_seeder
    cdef unsigned long long stored
    cdef unsigned long long expired
    cdef Py_ssize_t chained
    cdef unsigned int resume_kind
    cdef unsigned int resume_key

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void set32(self, Py_ssize_t at, unsigned int value) noexcept nogil
    cdef void walk(self, Py_ssize_t slot) noexcept nogil
    cdef void take_peer(self, unsigned int kind) noexcept nogil
    cdef unsigned int entries_of_source(self) noexcept nogil
    cdef void count_peer(self, unsigned int seeder, bint more) noexcept nogil
    cdef unsigned long long source(self) noexcept nogil
    cdef Py_ssize_t block_of(self, Py_ssize_t g, unsigned int key) noexcept nogil
    cdef Py_ssize_t index_in(self, Py_ssize_t p) noexcept nogil
    cdef bint find(self, unsigned int seeder) noexcept nogil
    cdef bint _find_among(self, unsigned int mask, unsigned int roles) noexcept nogil
    cdef Py_ssize_t meta_at(self, Py_ssize_t p, Py_ssize_t index, Py_ssize_t stride) noexcept nogil
    cdef bint insert(self, Py_ssize_t slot, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef Py_ssize_t _group_for(self, unsigned int seeder) noexcept nogil
    cdef bint _add_group(self, unsigned int seeder) noexcept nogil
    cdef Py_ssize_t _flat_granules(self, Py_ssize_t head, unsigned int kind, Py_ssize_t room) noexcept nogil
    cdef Py_ssize_t group_granules(self, Py_ssize_t i) noexcept nogil
    cdef bint _set_flat(self, Py_ssize_t i, unsigned int kind, Py_ssize_t room) noexcept nogil
    cdef void _put(self, Py_ssize_t p, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef void _copy_peer(self, Py_ssize_t p, Py_ssize_t to, Py_ssize_t start) noexcept nogil
    cdef bint _make_room(self, Py_ssize_t i, Py_ssize_t p) noexcept nogil
    cdef bint _part(self, Py_ssize_t i) noexcept nogil
    cdef void remove_hit(self, Py_ssize_t slot) noexcept nogil
    cdef void _cut(self, Py_ssize_t p, Py_ssize_t index) noexcept nogil
    cdef void tidy(self, Py_ssize_t i, Py_ssize_t p) noexcept nogil
    cdef void _dissolve(self, Py_ssize_t i) noexcept nogil
    cdef void _unchain(self, Py_ssize_t i) noexcept nogil
    cdef bint change_role(self, Py_ssize_t slot, unsigned int seeder, unsigned int meta) noexcept nogil
    cdef void free_swarm(self) noexcept nogil
    cdef void add_partial(self, bint more) noexcept nogil
    cdef Py_ssize_t _sweep_block(self, Py_ssize_t g, Py_ssize_t p, unsigned int now) noexcept nogil
    cdef Py_ssize_t seek_group(self) noexcept nogil
    cdef void stop_at(self, Py_ssize_t i, unsigned long long key) noexcept nogil
    cdef unsigned long long key_after(self, Py_ssize_t g, Py_ssize_t p, unsigned int key) noexcept nogil
    cdef Py_ssize_t sweep(self, Py_ssize_t slot, unsigned int now, Py_ssize_t budget) noexcept nogil
