"""Linear layers that add the step's adapters to the base model's output."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers.pytorch_utils import Conv1D

from kernels.grouped_lora import Segment, add_grouped_lora

Weights = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # linear's name → A [r, in], B [out, r]


class AdapterRows(NamedTuple):
    """Rows `start:end` of the step use this adapter."""

    name: str
    start: int
    end: int
    weights: Weights


@dataclass(slots=True)
class _Current:
    """The adapters of the step that is being computed; empty for a base-only step."""

    rows: list[AdapterRows] = field(default_factory=list)


LORA = _Current()


class MultiLoraLinear(torch.nn.Module):
    """A Linear or Conv1D of the base model, at its place and with its name."""

    def __init__(self, base: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.base = base
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.base(x)
        if LORA.rows:
            segments = [
                Segment(rows.start, rows.end, *rows.weights[self.name])
                for rows in LORA.rows
                if self.name in rows.weights
            ]
            if segments:
                add_grouped_lora(y.flatten(0, -2), x.flatten(0, -2), segments)
        return y


def linear_shape(module: torch.nn.Module) -> tuple[int, int]:
    """(out, in). Conv1D keeps its weight transposed."""
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


def install(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Wrap every linear layer but the LM head; returns their shapes (out, in) by name."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    shapes: dict[str, tuple[int, int]] = {}
    for name, module in list(_linears(model)):
        if module is head:
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, MultiLoraLinear(module, name))
        shapes[name] = linear_shape(module)
    return shapes


def _linears(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            yield name, module
