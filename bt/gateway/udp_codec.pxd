# The types of the codec's attributes and leaves.

cimport cython
from gateway.records cimport Records
from gateway.sources cimport Sources


@cython.final
cdef class UdpCodec:
    cdef Records records
    cdef Sources sources
    cdef Py_ssize_t sockets
    cdef Py_ssize_t depth
    cdef unsigned long long[::1] got
    cdef unsigned long long[::1] got_words
    cdef unsigned char[::1] got_bytes
    cdef unsigned long long[::1] got_names
    cdef unsigned long long[::1] got_controls
    cdef unsigned long long[::1] out_iovecs
    cdef unsigned long long[::1] out_names
    cdef unsigned long long[::1] out_controls
    cdef unsigned long long[::1] direct
    cdef unsigned char[::1] direct_bytes
    cdef unsigned long long direct_address
    cdef Py_ssize_t direct_used
    cdef readonly Py_ssize_t others
    cdef unsigned char[::1] family6
    cdef unsigned int[::1] pending
    cdef unsigned int want
    cdef unsigned int most
    cdef unsigned int windows
    cdef bint answer_invalid
    cdef unsigned char[::1] gathers
    cdef unsigned long long[::1] gather_words
    cdef unsigned long long gather_address
    cdef unsigned int[::1] free
    cdef Py_ssize_t free_places
    cdef unsigned long long[::1] ticket
    cdef unsigned char[::1] ticket_bytes
    cdef unsigned long long[::1] counts
    cdef unsigned long long key0
    cdef unsigned long long key1
    cdef unsigned long long old0
    cdef unsigned long long old1
    cdef unsigned long long rotated
    cdef bint has_old
    cdef unsigned long long error_cost
    cdef unsigned long long errors_full
    cdef unsigned long long high
    cdef unsigned long long low
    cdef unsigned long long local_high
    cdef unsigned long long local_low
    cdef unsigned long long port
    cdef unsigned long long scope
    cdef unsigned long long transaction
    cdef bint ipv6

    cdef void _decode(self, Py_ssize_t socket, Py_ssize_t i, unsigned long long now, unsigned long long window) noexcept nogil
    cdef bint _take_source(self, Py_ssize_t i, bint wide) noexcept nogil
    cdef void _connect(self, Py_ssize_t socket, unsigned long long now, unsigned long long window) noexcept nogil
    cdef void _announce(self, Py_ssize_t socket, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef bint _may_speak_for(self, unsigned long long address) noexcept nogil
    cdef void _check_options(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef void _scrape(self, Py_ssize_t socket, Py_ssize_t at, Py_ssize_t length, unsigned long long now) noexcept nogil
    cdef Py_ssize_t _begin_record(self, Py_ssize_t at) noexcept nogil
    cdef void _write_ticket(self, Py_ssize_t record, Py_ssize_t socket, unsigned long long action) noexcept nogil
    cdef unsigned long long _make_id(self, unsigned long long k0, unsigned long long k1, unsigned long long high, unsigned long long low, unsigned long long window) noexcept nogil
    cdef bint _is_good_id(self, unsigned long long given, unsigned long long window) noexcept nogil
    cdef void _refuse_id(self, Py_ssize_t socket, unsigned long long now) noexcept nogil
    cdef void _refuse(self, Py_ssize_t reason) noexcept nogil
    cdef void _error(self, Py_ssize_t socket, const unsigned char[::1] text, Py_ssize_t length, unsigned long long now) noexcept nogil
    cdef bint _encode(self, const unsigned char[::1] replies, Py_ssize_t at, Py_ssize_t length, unsigned long long address) noexcept nogil
    cdef void _queue(self, Py_ssize_t socket, unsigned long long address, Py_ssize_t length) noexcept nogil
    cdef void _queue_direct(self, Py_ssize_t socket, Py_ssize_t length) noexcept nogil
    cdef void _open_place(self, Py_ssize_t place, Py_ssize_t socket, Py_ssize_t many, unsigned long long now) noexcept nogil
    cdef bint _gather(self, const unsigned char[::1] replies, Py_ssize_t at) noexcept nogil
    cdef void _free_place(self, Py_ssize_t place) noexcept nogil
    cdef void _copy(self, unsigned char[::1] to, Py_ssize_t at, const unsigned char[::1] source, Py_ssize_t start, Py_ssize_t many) noexcept nogil
