# What codecs may see of the frames, and the types of the leaves.

cimport cython


@cython.final
cdef class Records:
    cdef readonly Py_ssize_t links
    cdef object allocate
    cdef unsigned int slices
    cdef Py_ssize_t depth
    cdef Py_ssize_t room
    cdef readonly Py_ssize_t frame_size
    cdef readonly object view
    cdef unsigned char[::1] raw
    cdef unsigned long long[::1] words
    cdef unsigned int[::1] filled
    cdef unsigned int[::1] seen
    cdef Py_ssize_t fullest
    cdef unsigned short[::1] table
    cdef unsigned int[::1] first
    cdef unsigned short[::1] copies
    cdef readonly bint copying
    cdef readonly unsigned long long uncopied
    cdef unsigned long long key0
    cdef unsigned long long key1
    cdef readonly object empty
    cdef unsigned char[::1] empty_raw
    cdef unsigned long long[::1] empty_words
    cdef unsigned long long random

    cdef unsigned int _copy_record(self, Py_ssize_t record, Py_ssize_t link, const unsigned char[::1] room) noexcept nogil
    cdef void _answer_empty(self, Py_ssize_t record, Py_ssize_t to) noexcept nogil
    cdef bint is_full(self) noexcept nogil
    cdef Py_ssize_t begin(self, unsigned long long m0, unsigned long long m1, unsigned long long m2) noexcept nogil
    cdef void end(self, Py_ssize_t record, unsigned long long high, unsigned long long low, unsigned long long port, unsigned long long flags, unsigned long long want) noexcept nogil
