# System calls of one-connection work, which connections.py makes for a whole batch at once.

cdef extern from "sys/socket.h" nogil:
    ctypedef struct sockaddr "struct sockaddr":
        pass
    int accept4(int fd, sockaddr *address, unsigned int *length, int flags) noexcept
    Py_ssize_t recv(int fd, void *buffer, size_t length, int flags) noexcept
    Py_ssize_t send(int fd, const void *buffer, size_t length, int flags) noexcept
    int shutdown(int fd, int how) noexcept

cdef extern from "unistd.h" nogil:
    int close(int fd) noexcept
