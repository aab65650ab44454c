"""Kernels for CPUs, in C: compiled once by the machine's own compiler, called through ctypes.

They compute in float32 and read weights, adapters and the KV cache at their stored size (bfloat16
as a rule): decoding is bound by memory, and half the bytes is nearly twice the speed, without any
loss against float32. Without a C compiler `library()` is None and torch does the work.
"""
