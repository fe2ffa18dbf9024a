# What other kernels may see of SipHash.

cdef unsigned long long sip(unsigned long long k0, unsigned long long k1, unsigned long long m0, unsigned long long m1, unsigned long long m2, unsigned long long m3, unsigned long long m4, Py_ssize_t words) noexcept nogil
