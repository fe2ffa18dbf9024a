# A single door: nothing that other kernels see.
