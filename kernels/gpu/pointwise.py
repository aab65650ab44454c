"""RMSNorm, SiLU·gate and rotary embedding, one pass over memory each, in float32 inside."""

import torch
import triton
import triton.language as tl


@triton.jit
def _rms_norm_kernel(x, weight, y, x_row, eps, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    values = tl.load(x + row * x_row + at, at < N, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values) / N + eps)
    weights = tl.load(weight + at, at < N, other=0.0).to(tl.float32)
    tl.store(y + row * N + at, (values * scale * weights).to(y.dtype.element_ty), at < N)


@triton.jit
def _silu_mul_kernel(x, y, N: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(x + row * 2 * N + at, at < N, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * N + N + at, at < N, other=0.0).to(tl.float32)
    y_value = gate / (1 + tl.exp(-gate)) * up
    tl.store(y + row * N + at, y_value.to(y.dtype.element_ty), at < N)


@triton.jit
def _rope_kernel(x, cos, sin, x_row, D: tl.constexpr, HALF: tl.constexpr):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, HALF)
    inside = at < D // 2
    low = x + row * x_row + head * D + at
    high = low + D // 2
    a = tl.load(low, inside).to(tl.float32)
    b = tl.load(high, inside).to(tl.float32)
    angle = row * D + at
    cos_low = tl.load(cos + angle, inside).to(tl.float32)
    sin_low = tl.load(sin + angle, inside).to(tl.float32)
    cos_high = tl.load(cos + angle + D // 2, inside).to(tl.float32)
    sin_high = tl.load(sin + angle + D // 2, inside).to(tl.float32)
    tl.store(low, (a * cos_low - b * sin_low).to(x.dtype.element_ty), inside)
    tl.store(high, (b * cos_high + a * sin_high).to(x.dtype.element_ty), inside)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., n], weight [n] → the same shape and dtype (arXiv:1910.07467)."""
    if x.dim() == 4 and x.stride(1) < x.stride(2):  # heads before tokens, but not in memory
        return rms_norm(x.transpose(1, 2), weight, eps).transpose(1, 2)
    n = x.shape[-1]
    x = x.contiguous()
    y = torch.empty_like(x)
    block = triton.next_power_of_2(n)
    warps = 1 if block <= 256 else 4 if block <= 2048 else 8
    _rms_norm_kernel[(x.numel() // n,)](x, weight, y, n, eps, n, block, num_warps=warps)
    return y


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """[..., 2n], gate before up → silu(gate) · up [..., n]."""
    n = gate_up.shape[-1] // 2
    y = gate_up.new_empty(*gate_up.shape[:-1], n)
    block = min(1024, triton.next_power_of_2(n))
    _silu_mul_kernel[(y.numel() // n, triton.cdiv(n, block))](gate_up, y, n, block)
    return y


def rope_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """In place on x [tokens, heads, d] (rows may be apart); cos, sin [tokens, d]."""
    tokens, heads, d = x.shape
    half = triton.next_power_of_2(d // 2)
    _rope_kernel[(tokens, heads)](x, cos, sin, x.stride(0), d, half, num_warps=1)
    return x
