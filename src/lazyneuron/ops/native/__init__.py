"""The native CPU kernels: building them from the C++ sources and loading them into torch."""
