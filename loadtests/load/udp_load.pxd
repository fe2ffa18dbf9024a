# The types of the UDP codec's leaves.

cimport cython

from loadtests.load.population cimport Population


@cython.final
cdef class UdpLoad:
    cdef Population population
    cdef Py_ssize_t room
    cdef readonly unsigned int next
    cdef readonly Py_ssize_t under_way
    cdef public bint filling
    cdef unsigned int[::1] scanned
    cdef unsigned int[::1] cursors
    cdef unsigned int connects
    cdef unsigned int scrapes
    cdef Py_ssize_t hashes
    cdef unsigned int want
    cdef Py_ssize_t tries
    cdef long long patience
    cdef unsigned char[::1] kinds
    cdef unsigned short[::1] sources
    cdef unsigned int[::1] transactions
    cdef unsigned int[::1] subjects
    cdef long long[::1] due
    cdef long long[::1] left
    cdef unsigned int[::1] scrape_slots
    cdef unsigned int next_scrape
    cdef unsigned int[::1] scrape_stamps
    cdef unsigned int[::1] scrape_owners
    cdef unsigned char[::1] ids
    cdef unsigned char[::1] connected
    cdef unsigned int[::1] buckets
    cdef unsigned long long[::1] tally

    cdef bint _choose(self, Py_ssize_t source, Py_ssize_t flight) noexcept nogil
    cdef void _begin_scrape(self, Py_ssize_t flight) noexcept nogil
    cdef Py_ssize_t _write(self, unsigned char[::1] out, Py_ssize_t at, Py_ssize_t flight) noexcept nogil
    cdef Py_ssize_t _write_announce(self, unsigned char[::1] out, Py_ssize_t at, Py_ssize_t peer) noexcept nogil
    cdef void _answer(self, Py_ssize_t source, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t length, long long now) noexcept nogil
    cdef unsigned int _connect(self, Py_ssize_t flight, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef unsigned int _judge_announce(self, Py_ssize_t flight, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef unsigned int _judge_scrape(self, Py_ssize_t flight, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef unsigned int _refused(self, Py_ssize_t flight, unsigned int fault) noexcept nogil
    cdef void _end(self, Py_ssize_t flight) noexcept nogil
    cdef void _time(self, Py_ssize_t what, long long nanoseconds) noexcept nogil
