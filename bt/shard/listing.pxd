# What the slice store may see of lists and chunks, and the types of the leaves.

cimport cython
from shard.peers cimport Peers


@cython.final
cdef class Listing:
    cdef Peers peers
    cdef unsigned char[::1] raw
    cdef unsigned char[::1] out
    cdef unsigned short[::1] words
    cdef unsigned long long random
    cdef Py_ssize_t stride
    cdef unsigned long long[::1] draws
    cdef Py_ssize_t turn

    cdef unsigned int word32(self, Py_ssize_t at) noexcept nogil
    cdef void send(self, Py_ssize_t to, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef void stir(self, unsigned long long entropy) noexcept nogil
    cdef void deal(self) noexcept nogil
    cdef Py_ssize_t draw(self, Py_ssize_t below) noexcept nogil
    cdef Py_ssize_t list_peers(self, unsigned int kind, unsigned int seeder, Py_ssize_t want, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _list_small(self, Py_ssize_t p, unsigned int seeder, Py_ssize_t want, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _listed_in(self, Py_ssize_t i) noexcept nogil
    cdef Py_ssize_t _list_group(self, Py_ssize_t i, Py_ssize_t want, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _list_block(self, Py_ssize_t p, Py_ssize_t first, Py_ssize_t end, Py_ssize_t want, Py_ssize_t to) noexcept nogil
    cdef void _send_run(self, Py_ssize_t p, Py_ssize_t start, Py_ssize_t end, Py_ssize_t own, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t dump(self, Py_ssize_t slot, unsigned int tag, unsigned int now, Py_ssize_t to) noexcept nogil
    cdef Py_ssize_t _dump_block(self, Py_ssize_t g, Py_ssize_t p, unsigned int tag, unsigned int now, Py_ssize_t to) noexcept nogil
    cdef unsigned int _hours_empty(self, unsigned int now) noexcept nogil
