# What the UDP codec of the load may see of a population, and the types of its leaves.

cimport cython


@cython.final
cdef class Population:
    cdef readonly Py_ssize_t torrents
    cdef readonly Py_ssize_t sources
    cdef readonly Py_ssize_t ports
    cdef readonly Py_ssize_t first_port
    cdef readonly Py_ssize_t peers
    cdef readonly Py_ssize_t present
    cdef public bint strict
    cdef Py_ssize_t stride
    cdef Py_ssize_t hot_peers
    cdef unsigned int hot
    cdef unsigned int seeds
    cdef unsigned int stops
    cdef unsigned int completes
    cdef unsigned long long seed
    cdef unsigned long long random
    cdef unsigned int answer
    cdef unsigned char[::1] families
    cdef unsigned char[::1] addresses
    cdef unsigned short[::1] places
    cdef unsigned int[::1] rows
    cdef unsigned int[::1] stamps
    cdef unsigned long long[::1] seen
    cdef unsigned char[::1] flights
    cdef unsigned int[::1] counts
    cdef unsigned int[::1] changes
    cdef unsigned long long[::1] found
    cdef long long[::1] examples

    cdef unsigned long long word(self) noexcept nogil
    cdef bint chance(self, unsigned int share) noexcept nogil
    cdef Py_ssize_t choose(self, Py_ssize_t source) noexcept nogil
    cdef bint is_flying(self, Py_ssize_t peer) noexcept nogil
    cdef unsigned int event(self, Py_ssize_t peer) noexcept nogil
    cdef unsigned int left(self, Py_ssize_t peer) noexcept nogil
    cdef Py_ssize_t _below(self, Py_ssize_t most) noexcept nogil
    cdef Py_ssize_t start(self, Py_ssize_t peer) noexcept nogil
    cdef void _count(self, Py_ssize_t peer, unsigned int mask, unsigned int change) noexcept nogil
    cdef void _believe(self, Py_ssize_t peer, unsigned int mask) noexcept nogil
    cdef void give_up(self, Py_ssize_t peer) noexcept nogil
    cdef bint is_empty(self, Py_ssize_t peer, long long seeders, long long leechers) noexcept nogil
    cdef unsigned int acknowledge(self, Py_ssize_t peer) noexcept nogil
    cdef unsigned int judge_counts(self, Py_ssize_t torrent, long long doubt, long long seeders, long long leechers) noexcept nogil
    cdef unsigned int judge_listed(self, Py_ssize_t peer, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t many, bint ipv6, long long doubt) noexcept nogil
    cdef unsigned int judge_many(self, Py_ssize_t peer, Py_ssize_t many, Py_ssize_t want, long long doubt) noexcept nogil
    cdef unsigned int note(self, unsigned int fault, Py_ssize_t torrent, Py_ssize_t peer, long long got, long long least, long long most) noexcept nogil
    cdef Py_ssize_t _find(self, const unsigned char[::1] raw, Py_ssize_t at, bint ipv6) noexcept nogil
    cdef void put_hash(self, unsigned char[::1] out, Py_ssize_t at, Py_ssize_t torrent) noexcept nogil
    cdef unsigned int mask(self, Py_ssize_t peer) noexcept nogil
    cdef bint is_seen(self, Py_ssize_t peer) noexcept nogil
    cdef Py_ssize_t torrent(self, Py_ssize_t peer) noexcept nogil
    cdef unsigned int state_of(self, Py_ssize_t peer) noexcept nogil
    cdef unsigned int stamp_of(self, Py_ssize_t torrent) noexcept nogil
    cdef unsigned int doubt_since(self, Py_ssize_t torrent, unsigned int stamp) noexcept nogil
    cdef Py_ssize_t _peer_at(self, Py_ssize_t slot) noexcept nogil
    cdef Py_ssize_t _find_source(self, const unsigned char[::1] raw, Py_ssize_t at, bint ipv6) noexcept nogil
    cdef Py_ssize_t _place_of(self, const unsigned char[::1] raw, Py_ssize_t at, bint ipv6) noexcept nogil
    cdef bint _is_at(self, Py_ssize_t source, const unsigned char[::1] raw, Py_ssize_t at, Py_ssize_t length) noexcept nogil
