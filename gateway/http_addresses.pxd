# What a request may see of addresses, and the types of the leaves.

cimport cython


cdef unsigned int digit_of(unsigned int byte) noexcept nogil


@cython.final
cdef class AddressReader:
    cdef unsigned char[::1] input
    cdef unsigned short[::1] groups
    cdef unsigned long long high
    cdef unsigned long long low

    cdef bint read_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _four_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
    cdef bint _six_unsafe(self, Py_ssize_t at, Py_ssize_t end) noexcept nogil
