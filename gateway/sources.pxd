# What codecs may see of the limits, and the types of the leaves.

cimport cython


cdef bint is_ipv6(unsigned long long high, unsigned long long low) noexcept nogil


@cython.final
cdef class Sources:
    cdef unsigned long long[::1] buckets
    cdef unsigned int[::1] connections
    cdef unsigned long long[::1] networks
    cdef Py_ssize_t exempt
    cdef Py_ssize_t trusted
    cdef Py_ssize_t proxies
    cdef unsigned long long refused_high
    cdef unsigned long long refused_low
    cdef unsigned long long secret
    cdef unsigned long long connect_cost
    cdef unsigned long long connect_burst
    cdef unsigned long long request_cost
    cdef unsigned long long request_burst

    cdef bint is_exempt(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef bint is_trusted(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef bint is_proxy(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef bint _is_in(self, Py_ssize_t at, Py_ssize_t end, unsigned long long high, unsigned long long low) noexcept nogil
    cdef void note_refused(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef bint admit_connect(self, unsigned long long high, unsigned long long low, unsigned long long now) noexcept nogil
    cdef bint admit_request(self, unsigned long long high, unsigned long long low, unsigned long long now) noexcept nogil
    cdef unsigned long long key_of(self, unsigned long long high, unsigned long long low) noexcept nogil
    cdef bint _admit(self, unsigned long long cost, unsigned long long burst, Py_ssize_t which, unsigned long long high, unsigned long long low, unsigned long long now) noexcept nogil
    cdef unsigned int count_connection(self, unsigned long long high, unsigned long long low, int change) noexcept nogil
