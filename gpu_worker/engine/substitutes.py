"""Faster modules in place of the model's own, where they compute the same.

Nothing is assumed from a name alone: each substitute runs once beside the original on random
input, and the original stays where they differ. Only for CPUs with the C kernels.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from gpu_worker.engine.attention import STEP
from gpu_worker.engine.lora.linears import AdaptedLinear, LinearSlice
from kernels.cpu.pointwise import rms_norm, rope_, silu_mul


class FusedRmsNorm(nn.Module):
    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight, self.eps)


class FusedGatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x)) with gate and up from one product."""

    def __init__(self, gate_up: AdaptedLinear, down: nn.Module) -> None:
        super().__init__()
        self.gate_up = gate_up
        self.down = down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.down(silu_mul(self.gate_up(x)))
        return y


@torch.inference_mode()
def substitute(model: nn.Module) -> None:
    """Replace what can be replaced. The weights must be float32 on the CPU."""
    for name, module in list(model.named_modules()):
        candidates = (*_norms(module), *_mlps(module))
        fused = next((f for f, width in candidates if _same(module, f, width)), None)
        if fused is not None:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, fused)
    _rotate_in_place(model)


def _norms(module: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Candidates for a module, and the width of their input."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or weight is None or weight.dim() != 1 or eps is None:
        return
    for scale in (weight, weight + 1):  # gemma keeps the difference from one
        yield FusedRmsNorm(scale, float(eps)), len(weight)


def _mlps(module: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    gate, down = getattr(module, "gate_proj", None), getattr(module, "down_proj", None)
    if isinstance(gate, LinearSlice) and isinstance(down, AdaptedLinear):
        yield FusedGatedMlp(gate.layer, down), gate.in_features


def _same(module: nn.Module, substitute: nn.Module, width: int) -> bool:
    x = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
    try:
        return torch.allclose(module(x), substitute(x), rtol=1e-4, atol=1e-5)
    except Exception:  # a module of this name with another signature: it stays
        return False


def _rotate_in_place(model: nn.Module) -> None:
    """`apply_rotary_pos_emb` of the model's file, during an engine step, by one pass a tensor."""
    for source in {type(module).__module__ for module in model.modules()}:
        module: Any = sys.modules[source]
        original = getattr(module, "apply_rotary_pos_emb", None)
        if original is None or getattr(original, "replaces", None) is not None:
            continue
        if _rotates_halves(original):
            module.apply_rotary_pos_emb = _rotary(original)


def _rotates_halves(original: Callable[..., Any]) -> bool:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, h, 5, 16, generator=generator) for h in (3, 1))
    angles = torch.randn(1, 5, 8, generator=generator).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    try:
        expected = original(q.clone(), k.clone(), cos, sin)
        ours = (_rotated(q, cos, sin), _rotated(k, cos, sin))
    except Exception:  # another signature or layout: it stays
        return False
    return all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))


def _rotary(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply_rotary_pos_emb(
        q: torch.Tensor,
        k: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        *rest: Any,
        **kw: Any,
    ) -> Any:
        ours = STEP.metadata is not None and not rest and not kw
        if not ours or cos.shape[-1] != q.shape[-1] or q.dtype != torch.float32:
            return original(q, k, cos, sin, *rest, **kw)
        return _rotated(q, cos, sin), _rotated(k, cos, sin)

    apply_rotary_pos_emb.replaces = original  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x [1, heads, tokens, d]; cos, sin [1, tokens, d]. In place where memory allows it."""
    rows = x[0].transpose(0, 1)
    if rows.stride()[1:] != (rows.shape[2], 1):
        rows = rows.contiguous()
    return rope_(rows, cos[0].contiguous(), sin[0].contiguous()).transpose(0, 1)[None]
