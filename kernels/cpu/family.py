"""The C kernels of CPUs, as the engine takes them. All of them take float32."""

from kernels.cpu.attention import decode_attention, store_kv
from kernels.cpu.pointwise import rms_norm, rope_, silu_mul
from kernels.family import KernelFamily

CPU = KernelFamily(store_kv, decode_attention, rms_norm, silu_mul, rope_)
