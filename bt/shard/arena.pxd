# What other kernels may see of the arena, and the types of its leaves.

cimport cython


@cython.final
cdef class Arena:
    cdef unsigned char[::1] raw
    cdef unsigned short[::1] words
    cdef Py_ssize_t frames
    cdef Py_ssize_t taken
    cdef unsigned char[::1] state
    cdef unsigned short[::1] used
    cdef unsigned short[::1] first
    cdef unsigned int[::1] next
    cdef unsigned int[::1] prev
    cdef unsigned int[::1] head
    cdef unsigned int[::1] runs
    cdef unsigned int[::1] pages

    cdef void _free_all(self) noexcept nogil
    cdef unsigned int take(self, Py_ssize_t granules) noexcept nogil
    cdef void give(self, unsigned int ref, Py_ssize_t granules) noexcept nogil
    cdef unsigned int _new_page(self, Py_ssize_t kind) noexcept nogil
    cdef void _link_page(self, unsigned int page, Py_ssize_t kind) noexcept nogil
    cdef void _unlink_page(self, unsigned int page, Py_ssize_t kind) noexcept nogil
    cdef unsigned int _take_frames(self, Py_ssize_t granules) noexcept nogil
    cdef void _give_frames(self, unsigned int at, Py_ssize_t granules) noexcept nogil
    cdef unsigned int _take_run(self, Py_ssize_t order) noexcept nogil
    cdef void _give_run(self, unsigned int at, Py_ssize_t order) noexcept nogil
    cdef void _push_run(self, unsigned int at, Py_ssize_t order) noexcept nogil
    cdef void _pop_run(self, unsigned int at, Py_ssize_t order) noexcept nogil
