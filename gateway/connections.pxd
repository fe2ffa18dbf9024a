# What the HTTP codec may see of connections, and the types of the leaves.

cimport cython
from gateway.sources cimport Sources


@cython.final
cdef class Connections:
    cdef object listeners
    cdef object sockets
    cdef object crowd
    cdef list gone
    cdef Sources sources
    cdef Py_ssize_t most
    cdef unsigned int per_source
    cdef unsigned int idle
    cdef int[::1] fds
    cdef unsigned long long[::1] high
    cdef unsigned long long[::1] low
    cdef unsigned long long[::1] number
    cdef unsigned long long[::1] life
    cdef unsigned long long lives
    cdef unsigned int[::1] due
    cdef unsigned char[::1] state
    cdef unsigned char[::1] held
    cdef unsigned char[::1] watched
    cdef unsigned char[::1] ended
    cdef unsigned int[::1] free
    cdef Py_ssize_t free_places
    cdef int[::1] place_of
    cdef unsigned char[::1] input
    cdef unsigned int[::1] row_place
    cdef unsigned int[::1] row_at
    cdef unsigned int[::1] row_length
    cdef readonly Py_ssize_t rows
    cdef readonly Py_ssize_t knocks
    cdef Py_ssize_t taken
    cdef unsigned char[::1] output
    cdef unsigned int[::1] answer_place
    cdef unsigned int[::1] answer_at
    cdef unsigned int[::1] answer_length
    cdef unsigned char[::1] answer_after
    cdef unsigned long long[::1] answer_life
    cdef readonly Py_ssize_t answers
    cdef Py_ssize_t written
    cdef unsigned char[::1] name
    cdef int error
    cdef unsigned long long lost
    cdef unsigned long long over_all
    cdef unsigned long long over_source
    cdef unsigned long long accepted

    cdef Py_ssize_t _admit(self, int fd, unsigned int now)
    cdef Py_ssize_t _open(self, int fd, unsigned long long high, unsigned long long low) noexcept
    cdef void _widen(self, int fd)
    cdef int _accept(self, Py_ssize_t index)
    cdef void _turn_away(self, int fd)
    cdef void _read(self, Py_ssize_t place)
    cdef bint _is_under_way(self, Py_ssize_t place) noexcept
    cdef void _row_of_nothing(self, Py_ssize_t place) noexcept
    cdef void _add_row(self, Py_ssize_t place, Py_ssize_t at, Py_ssize_t length) noexcept
    cdef void queue(self, Py_ssize_t place, Py_ssize_t at, Py_ssize_t length, unsigned int after, Py_ssize_t end) noexcept nogil
    cdef bint _send(self, Py_ssize_t i, unsigned int now)
    cdef void _after(self, Py_ssize_t place, unsigned int after, unsigned int now)
    cdef void _close(self, Py_ssize_t place)
    cdef void _forget(self, Py_ssize_t place)
    cdef void _free(self, Py_ssize_t place) noexcept
