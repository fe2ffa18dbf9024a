# What the slice store may see of the way ahead, and the types of the leaves.

cimport cython
from shard.listing cimport Listing
from shard.tables cimport Tables


@cython.final
cdef class Ahead:
    cdef Tables tables
    cdef Listing listing
    cdef unsigned short[::1] words
    cdef Py_ssize_t[::1] at
    cdef Py_ssize_t[::1] own
    cdef Py_ssize_t[::1] listed
    cdef Py_ssize_t[::1] directory
    cdef unsigned long long[::1] hash

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void ask(self, Py_ssize_t at) noexcept nogil
    cdef void ask_run(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef void home(self, Py_ssize_t k, Py_ssize_t s, unsigned int tag) noexcept nogil
    cdef void swarm(self, Py_ssize_t k, unsigned int tag) noexcept nogil
    cdef void group(self, Py_ssize_t k, unsigned int kind, unsigned int seeder) noexcept nogil
    cdef Py_ssize_t entry(self, Py_ssize_t g, unsigned int form, unsigned long long hash) noexcept nogil
    cdef void heads(self, Py_ssize_t k) noexcept nogil
    cdef void blocks(self, Py_ssize_t k) noexcept nogil
    cdef Py_ssize_t next_block(self, Py_ssize_t g, Py_ssize_t e) noexcept nogil
