"""The Triton kernels, as the engine takes them."""

from kernels.family import KernelFamily
from kernels.gpu.attention import decode_attention, prefill_attention, prefill_tiles, store_kv
from kernels.gpu.pointwise import rms_norm, rope_, silu_mul
from kernels.gpu.sampling import sample_tokens

GPU = KernelFamily(
    store_kv,
    decode_attention,
    rms_norm,
    silu_mul,
    rope_,
    prefill_attention,
    prefill_tiles,
    sample_tokens,
)
