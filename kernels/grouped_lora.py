"""Grouped LoRA: rows of one packed batch, sorted into segments, each with its own A and B.

This is the torch form: it runs on every device and is the reference that `cpu/lora.py` and
`gpu/lora.py` are compared with. The segments' ranks may differ; rows outside
all segments are the base model's and cost nothing. (Punica, arXiv:2310.18547, calls it SGMV.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch

Pair = tuple[torch.Tensor, torch.Tensor]  # A [rank, in], B [out, rank], scaling folded in
Groups = Sequence[Sequence[Pair | None]]  # by linear layer, by slice of it; None: not adapted
Packed = TypeVar("Packed")
Placed = TypeVar("Placed")


class LoraKernel(Protocol[Packed, Placed]):
    """Adds a step's adapters to the outputs of linear layers. `pack` may run in another thread.

    A packed adapter lies in the host's memory, a placed one where the kernel reads it: on a CPU
    the two are one. `slot_bytes` of the device's memory are kept for each slot: a larger adapter
    takes several; 0: slots take no memory of their own.
    """

    slot_bytes: int

    def pack(self, groups: Groups) -> Packed: ...

    def size(self, packed: Packed) -> int:
        """Bytes that it takes."""

    def place(self, packed: Packed) -> Placed:
        """Into a slot. Must not wait for the running step."""

    def drop(self, placed: Placed) -> None:
        """The slot is free. Steps that were begun before may still read it."""

    def begin(
        self,
        spans: Sequence[tuple[int, int]],
        adapters: Sequence[Placed],
        *,
        decoding: bool = False,
    ) -> None:
        """The step's segments: rows `start:end` use the adapter of the same place. `decoding`: each
        row is another sequence's."""

    def linear(self, base: torch.nn.Module, group: int, x: torch.Tensor) -> torch.Tensor:
        """base(x) plus the step's adapters of linear layer `group`. x [..., in] → [..., out]."""


class Segment(NamedTuple):
    """Rows `start:end` of the batch go through one adapter."""

    start: int
    end: int
    a: torch.Tensor  # [rank, in]
    b: torch.Tensor  # [out, rank], scaling folded in


def add_grouped_lora(y: torch.Tensor, x: torch.Tensor, segments: Sequence[Segment]) -> None:
    """y[start:end] += (x[start:end] @ A.T) @ B.T for each segment, in place.

    x: [tokens, in]; y: [tokens, out].
    """
    for start, end, a, b in segments:
        y[start:end].addmm_(torch.mm(x[start:end], a.t()), b.t())


class ReadInPlace:
    """Of kernels whose packed adapters are read where they lie."""

    slot_bytes = 0

    def place(self, packed: Packed) -> Packed:
        return packed

    def drop(self, placed: object) -> None:
        """Nothing to free: memory goes with the last reference."""


@dataclass(frozen=True, slots=True)
class TorchAdapter:
    groups: list[list[Pair | None]]


class TorchLora(ReadInPlace):
    """The reference as a `LoraKernel`, for any device and dtype."""

    def __init__(
        self,
        groups: Sequence[tuple[int, Sequence[int]]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`groups`: (in, widths of the slices) of each linear layer; a fused one has several."""
        self._widths = [tuple(widths) for _, widths in groups]
        self._dtype, self._device = dtype, device
        self._step: list[tuple[int, int, TorchAdapter]] = []

    def pack(self, groups: Groups) -> TorchAdapter:
        return TorchAdapter([[self._placed(pair) for pair in slices] for slices in groups])

    def _placed(self, pair: Pair | None) -> Pair | None:
        if pair is None:
            return None
        a, b = (t.to(self._device, self._dtype).contiguous() for t in pair)
        return a, b

    def size(self, packed: TorchAdapter) -> int:
        pairs = [pair for slices in packed.groups for pair in slices if pair is not None]
        return sum(t.numel() * t.element_size() for pair in pairs for t in pair)

    def begin(
        self,
        spans: Sequence[tuple[int, int]],
        adapters: Sequence[TorchAdapter],
        *,
        decoding: bool = False,
    ) -> None:
        self._step = [(*span, adapter) for span, adapter in zip(spans, adapters, strict=True)]

    def linear(self, base: torch.nn.Module, group: int, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = base(x)
        x, y, column = x.reshape(-1, x.shape[-1]), result.view(-1, result.shape[-1]), 0
        for index, width in enumerate(self._widths[group]):
            segments = [
                Segment(start, end, *pair)
                for start, end, adapter in self._step
                if (pair := adapter.groups[group][index]) is not None
            ]
            if segments:
                add_grouped_lora(y[:, column : column + width], x, segments)
            column += width
        return result
