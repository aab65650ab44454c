"""Linear layers that add the step's adapters to the base model's output.

Projections that share their input (q, k, v; gate and up) become one group: one product for the
base, one call for the adapters; the modules of the old names read their slices of it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

from kernels.grouped_lora import LoraKernel

# Projections with one input, by the name that checkpoints with one layer for all give it.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
MakeLinear = Callable[[Sequence[torch.nn.Module]], torch.nn.Module]


class LinearGroup(NamedTuple):
    """Linear layers with one input: their names in the model, input size, output sizes."""

    names: tuple[str, ...]
    in_features: int
    widths: tuple[int, ...]


class _Current(threading.local):
    """The kernel of the step that this thread computes; None for a base-only step."""

    kernel: LoraKernel[Any, Any] | None = None


LORA = _Current()


class AdaptedLinear(torch.nn.Module):
    """A linear layer of the base model, or several as one, plus the step's adapters."""

    def __init__(self, base: torch.nn.Module, index: int) -> None:
        super().__init__()
        self.base = base
        self.index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if LORA.kernel is not None:
            return LORA.kernel.linear(self.base, self.index, x)
        y: torch.Tensor = self.base(x)
        return y


class _Shared:
    """The output of a fused layer for the input that it last saw."""

    def __init__(self, layer: AdaptedLinear) -> None:
        self.layer = layer
        self._x: torch.Tensor | None = None
        self._y = torch.empty(0)

    def __call__(self, x: torch.Tensor, start: int, end: int, last: bool) -> torch.Tensor:
        if x is not self._x:
            self._x, self._y = x, self.layer(x)
        part = self._y[..., start:end]
        if last:  # keep nothing alive between layers
            self._x, self._y = None, torch.empty(0)
        return part


class LinearSlice(torch.nn.Module):
    """In place of one projection of a fused layer."""

    def __init__(self, shared: _Shared, start: int, end: int, last: bool, in_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, end - start
        self._read = (shared, start, end, last)  # a tuple: not a submodule a second time

    @property
    def layer(self) -> AdaptedLinear:
        return self._read[0].layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shared, start, end, last = self._read
        return shared(x, start, end, last)


def linear_shape(module: torch.nn.Module) -> tuple[int, int]:
    """(out, in). Conv1D keeps its weight transposed."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def install(model: torch.nn.Module, make: MakeLinear) -> list[LinearGroup]:
    """Replace every linear layer but the LM head; `make` computes one or several as one."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    groups: list[LinearGroup] = []
    for names in list(_groups(model, head)):
        modules = [model.get_submodule(name) for name in names]
        shapes = [linear_shape(module) for module in modules]
        group = LinearGroup(names, shapes[0][1], tuple(out for out, _ in shapes))
        layer = AdaptedLinear(make(modules), len(groups))
        groups.append(group)
        if len(names) == 1:
            _put(model, names[0], layer)
            continue
        shared, start = _Shared(layer), 0
        for name, width in zip(names, group.widths, strict=True):
            end, last = start + width, name == names[-1]
            _put(model, name, LinearSlice(shared, start, end, last, group.in_features))
            start = end
    return groups


def _groups(model: torch.nn.Module, head: torch.nn.Module | None) -> Iterator[tuple[str, ...]]:
    """Names of linear layers, those with one input together.

    Layers outside the decoder proper (of an output head, say) see other rows than the step's.
    """
    prefix = getattr(model, "base_model_prefix", "")
    inside = f"{prefix}." if prefix and hasattr(model, prefix) else ""
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not head
        and name.startswith(inside)
    }
    done: set[str] = set()
    for name in linears:
        if name in done:
            continue
        parent, _, own = name.rpartition(".")
        names = next((parts for parts in FUSED.values() if own in parts), (own,))
        together = tuple(f"{parent}.{n}".lstrip(".") for n in names)
        parts = [linears.get(n) for n in together]
        fusable = (
            all(type(p) is torch.nn.Linear for p in parts)
            and len(
                {(p.in_features, p.bias is None) for p in parts if p is not None}  # type: ignore[union-attr]
            )
            == 1
        )
        chosen = together if fusable else (name,)
        done.update(chosen)
        yield chosen


def _put(model: torch.nn.Module, name: str, module: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
