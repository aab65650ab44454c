"""RMSNorm, SiLU·gate and rotary embedding, one pass over memory each."""

import torch

from kernels.cpu.program import call


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., n] float32, weight [n] → the same shape (arXiv:1910.07467)."""
    if x.dim() == 4 and x.stride(1) < x.stride(2):  # heads before tokens, but not in memory
        return rms_norm(x.transpose(1, 2), weight, eps).transpose(1, 2)
    x = x.contiguous()
    y = torch.empty_like(x)
    n = x.shape[-1]
    call("lpx_rms_norm", x.data_ptr(), weight.data_ptr(), y.data_ptr(), x.numel() // n, n, eps)
    return y


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """[..., 2n] float32, gate before up → silu(gate) · up [..., n]."""
    n = gate_up.shape[-1] // 2
    y = gate_up.new_empty(*gate_up.shape[:-1], n)
    call("lpx_silu_mul", gate_up.data_ptr(), y.data_ptr(), y.numel() // max(1, n), n)
    return y


def rope_(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """In place on x [tokens, heads, d] (rows may be apart); cos, sin [tokens, d] float32."""
    tokens, heads, d = x.shape
    call("lpx_rope", x.data_ptr(), cos.data_ptr(), sin.data_ptr(), tokens, heads, d, x.stride(0))
    return x
