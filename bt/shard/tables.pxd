# What the slice store may see of the tables, and the types of the leaves.

cimport cython
from shard.arena cimport Arena


cdef Py_ssize_t homes_of(Py_ssize_t granules) noexcept nogil


@cython.final
cdef class Tables:
    cdef Arena arena
    cdef unsigned char[::1] raw
    cdef unsigned short[::1] words
    cdef unsigned int[::1] table
    cdef unsigned int[::1] room
    cdef unsigned int[::1] filled
    cdef unsigned long long swarms
    cdef unsigned char[::1] key
    cdef Py_ssize_t place

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void set32(self, Py_ssize_t at, unsigned int value) noexcept nogil
    cdef Py_ssize_t find(self, Py_ssize_t s, unsigned int tag) noexcept nogil
    cdef int compare(self, Py_ssize_t swarm) noexcept nogil
    cdef Py_ssize_t make_swarm(self, Py_ssize_t s, unsigned int tag) noexcept nogil
    cdef void remove(self, Py_ssize_t s, Py_ssize_t slot) noexcept nogil
    cdef Py_ssize_t end_of(self, Py_ssize_t s) noexcept nogil
    cdef bint _shift(self, Py_ssize_t s) noexcept nogil
    cdef void _unshift(self, Py_ssize_t s, Py_ssize_t slot) noexcept nogil
    cdef void _copy_slot(self, Py_ssize_t to, Py_ssize_t start) noexcept nogil
    cdef void trim(self, Py_ssize_t s) noexcept nogil
    cdef bint _enlarge(self, Py_ssize_t s) noexcept nogil
    cdef bint _resize(self, Py_ssize_t s, Py_ssize_t granules) noexcept nogil
    cdef void _replace(self, Py_ssize_t s, unsigned int ref, unsigned int granules) noexcept nogil
    cdef bint _fill(self, Py_ssize_t s, Py_ssize_t base, Py_ssize_t granules) noexcept nogil
    cdef Py_ssize_t seek(self, Py_ssize_t s, unsigned char[::1] cursor) noexcept nogil
    cdef Py_ssize_t next_slot(self, Py_ssize_t slot, Py_ssize_t end) noexcept nogil
