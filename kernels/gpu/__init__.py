"""Triton kernels for NVIDIA GPUs. Each has a torch reference in its test.

With TRITON_INTERPRET=1 they run on CPU tensors, slowly (float32 and float16: the interpreter of
Triton 3.9 multiplies bfloat16 wrongly); `tests/unit/test_gpu_kernels_compile.py` compiles each for
real GPUs, which needs none.
"""
