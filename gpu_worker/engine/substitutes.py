"""Faster modules in place of the model's own, where they compute the same.

Nothing is assumed from a name alone: each substitute runs once beside the original on random
input, and the original stays where they differ.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gpu_worker.engine.attention import STEP
from gpu_worker.engine.lora.linears import AdaptedLinear, LinearSlice
from kernels.family import KernelFamily, Operation
from kernels.layout import heads_together


class FusedRmsNorm(nn.Module):
    def __init__(self, weight: torch.Tensor, eps: float, rms_norm: Operation) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.eps = eps
        self._rms_norm = rms_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x, self.weight, self.eps)


class FusedGatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x)) with gate and up from one product."""

    def __init__(self, gate_up: AdaptedLinear, down: nn.Module, silu_mul: Operation) -> None:
        super().__init__()
        self.gate_up = gate_up
        self.down = down
        self._silu_mul = silu_mul

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(self._silu_mul(self.gate_up(x)))
        return y


@torch.inference_mode()
def substitute(model: nn.Module, kernels: KernelFamily) -> None:
    """Replace what can be replaced."""
    like = next(model.parameters())
    for name, module in list(model.named_modules()):
        candidates = (*_norms(module, kernels.rms_norm), *_mlps(module, kernels.silu_mul))
        fused = next((f for f, width in candidates if _same(module, f, width, like)), None)
        if fused is not None:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, fused)
    _rotate_in_place(model, kernels.rope_, like)


def _norms(module: nn.Module, rms_norm: Operation) -> Iterator[tuple[nn.Module, int]]:
    """Candidates for a module, and the width of their input."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or weight is None or weight.dim() != 1 or eps is None:
        return
    for scale in (weight, weight.float() + 1):  # gemma keeps the difference from one
        yield FusedRmsNorm(scale, float(eps), rms_norm), len(weight)


def _mlps(module: nn.Module, silu_mul: Operation) -> Iterator[tuple[nn.Module, int]]:
    gate, down = getattr(module, "gate_proj", None), getattr(module, "down_proj", None)
    if isinstance(gate, LinearSlice) and isinstance(down, AdaptedLinear):
        yield FusedGatedMlp(gate.layer, down, silu_mul), gate.in_features


def _same(module: nn.Module, substitute: nn.Module, width: int, like: torch.Tensor) -> bool:
    x = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0)).to(like)
    # In half precision the original rounds between its operations.
    rtol, atol = (1e-4, 1e-5) if like.dtype == torch.float32 else (2e-2, 2e-2)
    try:
        return torch.allclose(module(x), substitute(x), rtol=rtol, atol=atol)
    except Exception:  # a module of this name with another signature: it stays
        return False


def _rotate_in_place(model: nn.Module, rope_: Operation, like: torch.Tensor) -> None:
    """`apply_rotary_pos_emb` of the model's file, during an engine step, by one pass a tensor."""
    for source in {type(module).__module__ for module in model.modules()}:
        module: Any = sys.modules[source]
        original = getattr(module, "apply_rotary_pos_emb", None)
        if original is None or getattr(original, "replaces", None) is not None:
            continue
        if _rotates_halves(original, rope_, like.device):
            module.apply_rotary_pos_emb = _rotary(original)


def _rotates_halves(original: Callable[..., Any], rope_: Operation, device: torch.device) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, h, 5, 16, generator=generator).to(device) for h in (3, 1))
    angles = torch.randn(1, 5, 8, generator=generator).to(device).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    try:
        expected = original(q.clone(), k.clone(), cos, sin)
        ours = (_rotated(q, cos, sin, rope_), _rotated(k, cos, sin, rope_))
    except Exception:  # another signature or layout: it stays
        return False
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))


def _rotary(original: Callable[..., Any]) -> Callable[..., Any]:
    """By the kernels of the step's engine: one process may have several."""

    def apply_rotary_pos_emb(
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *rest: Any,
        **kw: Any,
    ) -> Any:
        kernels = STEP.cache.kernels if STEP.cache is not None else None
        if kernels is None or rest or kw or cos.shape[-1] != q.shape[-1]:
            return original(q, k, cos, sin, *rest, **kw)
        return _rotated(q, cos, sin, kernels.rope_), _rotated(k, cos, sin, kernels.rope_)

    apply_rotary_pos_emb.replaces = original  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def _rotated(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rope_: Operation
) -> torch.Tensor:
    """x [1, heads, tokens, d]; cos, sin [1, tokens, d]. In place where memory allows it."""
    rows = heads_together(x[0].transpose(0, 1))
    return rope_(rows, cos[0].contiguous(), sin[0].contiguous()).transpose(0, 1)[None]
