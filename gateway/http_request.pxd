# What the codec may see of a request, and the types of the leaves.

cimport cython
from gateway.http_addresses cimport AddressReader
from gateway.sources cimport Sources


@cython.final
cdef class HttpRequest:
    cdef unsigned char[::1] input
    cdef Sources sources
    cdef AddressReader addresses
    cdef unsigned long long[::1] key_words
    cdef unsigned char[::1] key
    cdef unsigned char[::1] sorted
    cdef Py_ssize_t distinct
    cdef unsigned int[::1] forwarded
    cdef Py_ssize_t forwards
    cdef Py_ssize_t ignored
    cdef unsigned int options
    cdef Py_ssize_t fault
    cdef unsigned int kind
    cdef Py_ssize_t line_end
    cdef Py_ssize_t query
    cdef Py_ssize_t query_end
    cdef Py_ssize_t pos
    cdef Py_ssize_t pair_end
    cdef unsigned long long name_tail
    cdef Py_ssize_t name_length
    cdef bint bad_escape
    cdef unsigned long long high
    cdef unsigned long long low
    cdef unsigned long long own_high
    cdef unsigned long long own_low
    cdef Py_ssize_t hashes
    cdef bint bad_hash
    cdef bint has_peer_id
    cdef Py_ssize_t port
    cdef bint seeder
    cdef unsigned int event
    cdef unsigned long long numwant

    cdef Py_ssize_t read_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef Py_ssize_t _find(self, unsigned int byte, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef Py_ssize_t _line_end(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _may_be_request_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _request_line_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _is(self, Py_ssize_t at, Py_ssize_t end, unsigned long long word, Py_ssize_t many) noexcept nogil
    cdef unsigned long long _word(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _target_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef void _header_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _is_word_unsafe(self, Py_ssize_t at, Py_ssize_t end, unsigned long long word, Py_ssize_t many) noexcept nogil
    cdef void take_source_unsafe(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef void _forwarded_unsafe(self) noexcept nogil
    cdef void take_query_unsafe(self) noexcept nogil
    cdef unsigned long long _name_unsafe(self) noexcept nogil
    cdef unsigned int _byte_unsafe(self) noexcept nogil
    cdef void _hash_unsafe(self) noexcept nogil
    cdef void _value_unsafe(self, unsigned long long name) noexcept nogil
    cdef unsigned long long _number_unsafe(self) noexcept nogil
    cdef void _event_unsafe(self) noexcept nogil
    cdef void _peer_id_unsafe(self) noexcept nogil
    cdef bint _ip_unsafe(self) noexcept nogil
    cdef void _add_hash(self) noexcept nogil
    cdef void take_sorted(self, Py_ssize_t i) noexcept nogil
    cdef int _compare(self, Py_ssize_t at) noexcept nogil
    cdef void _shift(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _copy_out(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
