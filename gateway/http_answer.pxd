# What the codec may see of an answer, and the types of the leaves.

cimport cython


@cython.final
cdef class HttpAnswer:
    cdef unsigned char[::1] output
    cdef const unsigned char[::1] replies
    cdef const unsigned char[::1] texts
    cdef const unsigned int[::1] text_at
    cdef const unsigned char[::1] faults
    cdef unsigned int[::1] fault_at
    cdef unsigned char[::1] digits
    cdef Py_ssize_t start
    cdef Py_ssize_t to

    cdef void counts(self, unsigned long long high, unsigned long long low, unsigned long long seeders, unsigned long long completed, unsigned long long leechers, unsigned long long interval) noexcept nogil
    cdef void peers(self, Py_ssize_t at, Py_ssize_t many, Py_ssize_t stride) noexcept nogil
    cdef void _prefix(self, Py_ssize_t start, Py_ssize_t many) noexcept nogil
    cdef void _write4(self, Py_ssize_t at) noexcept nogil
    cdef void _write6(self, Py_ssize_t at) noexcept nogil
    cdef void failure(self, Py_ssize_t fault) noexcept nogil
    cdef void byte(self, unsigned int byte) noexcept nogil
    cdef void text(self, Py_ssize_t text) noexcept nogil
    cdef void take(self, Py_ssize_t at, Py_ssize_t many) noexcept nogil
    cdef void hash(self, unsigned char[::1] source, Py_ssize_t at) noexcept nogil
    cdef void number(self, unsigned long long value) noexcept nogil
    cdef unsigned int u16_at(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long u32_at(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long u64_at(self, Py_ssize_t at) noexcept nogil
    cdef unsigned long long be32_at(self, Py_ssize_t at) noexcept nogil
