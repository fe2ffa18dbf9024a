# The types of the store's attributes and leaves.

cimport cython
from shard.ahead cimport Ahead
from shard.arena cimport Arena
from shard.listing cimport Listing
from shard.peers cimport Peers
from shard.tables cimport Tables


@cython.final
cdef class SliceStore:
    cdef Arena arena
    cdef Tables tables
    cdef Peers peers
    cdef Listing listing
    cdef unsigned char[::1] raw
    cdef unsigned short[::1] words
    cdef unsigned int slices
    cdef unsigned int interval
    cdef unsigned int swarm_limit
    cdef unsigned int entry_limit
    cdef unsigned long long secret
    cdef unsigned long long swept
    cdef unsigned long long steps
    cdef unsigned int[::1] newcomers
    cdef unsigned long long[::1] counts
    cdef unsigned char[::1] cursor
    cdef unsigned char[::1] spare
    cdef unsigned int dropping
    cdef public Py_ssize_t cached
    cdef Ahead ahead
    cdef unsigned long long[::1] line
    cdef unsigned char[::1] line_bytes
    cdef bint full
    cdef unsigned char[::1] states
    cdef unsigned long long[::1] changes
    cdef unsigned int[::1] asked
    cdef readonly unsigned long long arrivals
    cdef readonly unsigned long long dropped
    cdef const unsigned char[::1] frame
    cdef unsigned char[::1] out

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void set32(self, Py_ssize_t at, unsigned int value) noexcept nogil
    cdef void _let_go(self)
    cdef void _take_endpoint(self, Py_ssize_t at, unsigned int kind) noexcept nogil
    cdef void _look_ahead(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _ask_blocks(self, Py_ssize_t many) noexcept nogil
    cdef Py_ssize_t _slice_of(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t _answer(self, Py_ssize_t at, Py_ssize_t to, unsigned int now) noexcept nogil
    cdef void _note_change(self, Py_ssize_t s) noexcept nogil
    cdef unsigned int _refresh(self, Py_ssize_t slot, unsigned int seeder, unsigned int event, unsigned int now) noexcept nogil
    cdef bint _rewrite(self, Py_ssize_t slot, unsigned int seeder, unsigned int meta, bint partial) noexcept nogil
    cdef void _complete(self) noexcept nogil
    cdef unsigned int _store(self, Py_ssize_t s, Py_ssize_t slot, unsigned int tag, Py_ssize_t at, unsigned int seeder, unsigned int event, unsigned int now) noexcept nogil
    cdef void _remove(self, Py_ssize_t s, Py_ssize_t slot, unsigned int now) noexcept nogil
    cdef void _forget_empty(self, Py_ssize_t s, Py_ssize_t slot, unsigned int now) noexcept nogil
    cdef bint _may_make_swarm(self, unsigned int now) noexcept nogil
    cdef Py_ssize_t _scraped(self, Py_ssize_t at, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _listed(self, Py_ssize_t at, Py_ssize_t to, unsigned int kind, unsigned int status, unsigned int now) noexcept nogil
    cdef bint _may_lack(self, Py_ssize_t s, unsigned int now) noexcept nogil
    cdef void _write_line(self, Py_ssize_t at, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _list_family(self, unsigned int family, bint local, unsigned int seeder, Py_ssize_t want, Py_ssize_t to) noexcept nogil
    cdef void _note(self, unsigned char[::1] cursor, Py_ssize_t slot) noexcept nogil
    cdef void _resume(self, unsigned char[::1] cursor, Py_ssize_t slot) noexcept nogil
    cdef Py_ssize_t _sweep_slice(self, Py_ssize_t s, unsigned char[::1] cursor, unsigned int now, Py_ssize_t budget) noexcept nogil
    cdef void _expire_swarm(self, Py_ssize_t s, Py_ssize_t slot, unsigned int now) noexcept nogil
    cdef Py_ssize_t _dump(self, Py_ssize_t s, unsigned char[::1] cursor, unsigned int now) noexcept nogil
    cdef Py_ssize_t _load(self, Py_ssize_t s, const unsigned char[::1] chunk, unsigned int now) noexcept nogil
    cdef Py_ssize_t _load_section(self, Py_ssize_t s, Py_ssize_t slot, const unsigned char[::1] chunk, Py_ssize_t at, unsigned int now) noexcept nogil
    cdef bint _merge_peer(self, Py_ssize_t slot, const unsigned char[::1] chunk, Py_ssize_t at, unsigned int kind, unsigned int age, unsigned int bits, unsigned int now) noexcept nogil
