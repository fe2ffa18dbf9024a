# The types of the HTTP codec's attributes and leaves.

cimport cython
from gateway.connections cimport Connections
from gateway.records cimport Records
from gateway.sources cimport Sources


@cython.final
cdef class HttpCodec:
    cdef Connections connections
    cdef Records records
    cdef Sources sources
    cdef unsigned int want
    cdef unsigned int most
    cdef unsigned long long boot
    cdef unsigned char[::1] input
    cdef unsigned char[::1] output
    cdef const unsigned char[::1] replies
    cdef const unsigned char[::1] texts
    cdef const unsigned int[::1] text_at
    cdef const unsigned char[::1] faults
    cdef unsigned int[::1] fault_at
    cdef unsigned char[::1] gathers
    cdef unsigned long long[::1] gather_words
    cdef unsigned int[::1] free
    cdef Py_ssize_t free_places
    cdef unsigned int[::1] special_row
    cdef unsigned char[::1] special_kind
    cdef unsigned int[::1] special_from
    cdef Py_ssize_t specials
    cdef unsigned long long[::1] counts
    cdef unsigned long long numbers
    cdef unsigned long long[::1] key_words
    cdef unsigned char[::1] key
    cdef unsigned int[::1] forwarded
    cdef Py_ssize_t forwards
    cdef unsigned char[::1] digits
    cdef unsigned short[::1] groups
    cdef unsigned int interval
    cdef unsigned long long random
    # The request in hand.
    cdef Py_ssize_t place
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
    cdef bint ipv6
    cdef unsigned long long own_high
    cdef unsigned long long own_low
    cdef unsigned long long address_high
    cdef unsigned long long address_low
    cdef Py_ssize_t hashes
    cdef bint bad_hash
    cdef bint has_peer_id
    cdef Py_ssize_t port
    cdef bint seeder
    cdef unsigned int event
    cdef unsigned int numwant
    cdef Py_ssize_t gather
    # The answer in hand.
    cdef Py_ssize_t start
    cdef Py_ssize_t to

    cdef void _decode_unsafe(self, Py_ssize_t row, unsigned long long now, unsigned int seconds) noexcept nogil
    cdef void _special(self, Py_ssize_t row, unsigned int kind, Py_ssize_t start) noexcept nogil
    cdef Py_ssize_t _request_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef Py_ssize_t _line_end(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _may_be_request_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _request_line_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _is(self, Py_ssize_t at, Py_ssize_t end, unsigned long long word, Py_ssize_t many) noexcept nogil
    cdef unsigned long long _word(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _target_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef void _header_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _is_word_unsafe(self, Py_ssize_t at, Py_ssize_t end, unsigned long long word, Py_ssize_t many) noexcept nogil
    cdef void _source_unsafe(self) noexcept nogil
    cdef void _forwarded_unsafe(self) noexcept nogil
    cdef bint _address_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _address4_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _address6_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef void _ask_unsafe(self, unsigned long long now, unsigned int seconds) noexcept nogil
    cdef void _announce_unsafe(self) noexcept nogil
    cdef void _record(self) noexcept nogil
    cdef void _ticket(self, Py_ssize_t record, unsigned long long kind, unsigned long long number) noexcept nogil
    cdef void _pairs_unsafe(self) noexcept nogil
    cdef unsigned long long _name_unsafe(self) noexcept nogil
    cdef unsigned int _byte_unsafe(self) noexcept nogil
    cdef void _hash_unsafe(self) noexcept nogil
    cdef void _value_unsafe(self, unsigned long long name) noexcept nogil
    cdef unsigned long long _number_unsafe(self) noexcept nogil
    cdef void _event_unsafe(self) noexcept nogil
    cdef void _peer_id_unsafe(self) noexcept nogil
    cdef void _take_ip(self) noexcept nogil
    cdef void _scrape_unsafe(self, unsigned int seconds) noexcept nogil
    cdef void _add_hash(self) noexcept nogil
    cdef int _compare(self, Py_ssize_t at) noexcept nogil
    cdef void _shift(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _copy_out(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _copy_in(self, Py_ssize_t to, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef unsigned int _u16(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long _u32(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long _u64(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long _be32(self, Py_ssize_t at) noexcept nogil
    cdef bint _encode(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef bint _is_waiting(self, Py_ssize_t place, unsigned long long number) noexcept nogil
    cdef bint _announced(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef void _counts(self, unsigned long long seeders, unsigned long long completed, unsigned long long leechers, unsigned long long interval) noexcept nogil
    cdef void _list(self, Py_ssize_t at, Py_ssize_t many, Py_ssize_t stride) noexcept nogil
    cdef void _prefix(self, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef void _write4(self, Py_ssize_t at) noexcept nogil
    cdef void _write6(self, Py_ssize_t at) noexcept nogil
    cdef bint _gather(self, Py_ssize_t at) noexcept nogil
    cdef bint _scraped(self, Py_ssize_t place) noexcept nogil
    cdef void _free_gather(self, Py_ssize_t place) noexcept nogil
    cdef void _give_up(self, Py_ssize_t place) noexcept nogil
    cdef void _fail(self, Py_ssize_t fault) noexcept nogil
    cdef void _fail_hard(self, Py_ssize_t fault) noexcept nogil
    cdef void _bytes_of_fault(self, Py_ssize_t fault) noexcept nogil
    cdef bint _open_answer(self) noexcept nogil
    cdef void _close_answer(self) noexcept nogil
    cdef void _add_answer(self, Py_ssize_t at, Py_ssize_t length) noexcept nogil
    cdef void _byte(self, unsigned int byte) noexcept nogil
    cdef void _text(self, Py_ssize_t text) noexcept nogil
    cdef void _bytes(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void _hash_text(self, Py_ssize_t at) noexcept nogil
    cdef void _number(self, unsigned long long value) noexcept nogil
