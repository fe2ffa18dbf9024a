# What the server may see of the codec, and the types of the leaves.

cimport cython
from gateway.connections cimport Connections
from gateway.http_answer cimport HttpAnswer
from gateway.http_request cimport HttpRequest
from gateway.records cimport Records
from gateway.sources cimport Sources


@cython.final
cdef class HttpCodec:
    cdef Connections connections
    cdef Records records
    cdef Sources sources
    cdef HttpRequest request
    cdef HttpAnswer answer
    cdef unsigned int want
    cdef unsigned int most
    cdef unsigned long long boot
    cdef unsigned char[::1] output
    cdef unsigned char[::1] gathers
    cdef unsigned long long[::1] gather_words
    cdef unsigned int[::1] free
    cdef Py_ssize_t free_places
    cdef unsigned char[::1] asked
    cdef unsigned int[::1] special_row
    cdef unsigned char[::1] special_kind
    cdef unsigned int[::1] special_from
    cdef readonly Py_ssize_t specials
    cdef unsigned long long[::1] counts
    cdef unsigned long long numbers
    cdef readonly unsigned int interval
    cdef unsigned long long random
    cdef Py_ssize_t place
    cdef unsigned int options
    cdef unsigned long long high
    cdef unsigned long long low
    cdef Py_ssize_t gather

    cdef void _decode_unsafe(self, Py_ssize_t row, unsigned long long now, unsigned int seconds) noexcept nogil
    cdef Py_ssize_t _too_long(self, Py_ssize_t at) noexcept nogil
    cdef void _special(self, Py_ssize_t row, unsigned int kind, Py_ssize_t start) noexcept nogil
    cdef void _ask(self, unsigned long long now, unsigned int seconds) noexcept nogil
    cdef Py_ssize_t _announce(self) noexcept nogil
    cdef Py_ssize_t _scrape(self, unsigned int seconds) noexcept nogil
    cdef bint _encode(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef bint _is_waiting(self, Py_ssize_t place, unsigned long long number) noexcept nogil
    cdef bint _announced(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef bint _gather(self, Py_ssize_t at) noexcept nogil
    cdef bint _scraped(self, Py_ssize_t place) noexcept nogil
    cdef void _free_gather(self, Py_ssize_t place) noexcept nogil
    cdef void _free_late(self, Py_ssize_t place) noexcept nogil
    cdef bint _fail_scrape(self, Py_ssize_t record) noexcept nogil
    cdef void _give_up(self, Py_ssize_t place) noexcept nogil
    cdef void _fail(self, Py_ssize_t fault) noexcept nogil
    cdef void _fail_hard(self, Py_ssize_t fault) noexcept nogil
    cdef bint _open_answer(self) noexcept nogil
    cdef void _close_answer(self) noexcept nogil
    cdef void _add_answer(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
