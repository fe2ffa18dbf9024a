# What other kernels may see of directories, and the types of the leaves.

cimport cython
from shard.arena cimport Arena


cdef unsigned long long mix(unsigned long long word) noexcept nogil
cdef unsigned long long spiral(unsigned long long hash) noexcept nogil
cdef Py_ssize_t more_room(Py_ssize_t room) noexcept nogil


@cython.final
cdef class Directories:
    cdef Arena arena
    cdef unsigned short[::1] words
    cdef unsigned short[::1] peer
    cdef unsigned long long secret
    cdef Py_ssize_t deepest

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void set32(self, Py_ssize_t at, unsigned int value) noexcept nogil
    cdef void move_words(self, Py_ssize_t to, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef unsigned int hash_peer(self, Py_ssize_t stride) noexcept nogil
    cdef unsigned long long source(self, Py_ssize_t stride) noexcept nogil
    cdef Py_ssize_t block_of(self, Py_ssize_t g, unsigned int key) noexcept nogil
    cdef Py_ssize_t block_granules(self, Py_ssize_t stride, Py_ssize_t room) noexcept nogil
    cdef Py_ssize_t granules_of(self, Py_ssize_t head, Py_ssize_t form) noexcept nogil
    cdef bint spread(self, Py_ssize_t g, Py_ssize_t head, Py_ssize_t owner, Py_ssize_t granules, Py_ssize_t stride) noexcept nogil
    cdef void _point(self, Py_ssize_t g, unsigned int key, Py_ssize_t depth, unsigned int ref) noexcept nogil
    cdef bint set_block(self, Py_ssize_t g, Py_ssize_t p, Py_ssize_t room, Py_ssize_t stride, unsigned int key) noexcept nogil
    cdef bint split(self, Py_ssize_t g, Py_ssize_t head, Py_ssize_t owner, Py_ssize_t p, Py_ssize_t stride, unsigned int key) noexcept nogil
    cdef void _deal(self, Py_ssize_t p, Py_ssize_t to, Py_ssize_t room, unsigned long long which, Py_ssize_t many, Py_ssize_t depth, Py_ssize_t role, Py_ssize_t stride) noexcept nogil
    cdef bint _double(self, Py_ssize_t g, Py_ssize_t head, Py_ssize_t owner) noexcept nogil
    cdef void halve(self, Py_ssize_t g, Py_ssize_t head, Py_ssize_t owner, Py_ssize_t deepest) noexcept nogil
    cdef Py_ssize_t join(self, Py_ssize_t g, Py_ssize_t p, Py_ssize_t stride, unsigned int key) noexcept nogil
    cdef void free_blocks(self, Py_ssize_t g, Py_ssize_t stride) noexcept nogil
