# The compiler's prefetch: asks for a line of the cache, changes nothing, cannot fail.

cdef extern from *:
    void prefetch "__builtin_prefetch" (const void *) noexcept nogil
