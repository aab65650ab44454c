"""Grouped LoRA on the CPU: a batch's adapters of any mix of ranks, one call a linear layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.cpu.linear import PackedLinear, kind_of, pack
from kernels.grouped_lora import Groups, ReadInPlace


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """One adapter's panels. `table` [groups, 2 + 2 · most slices]: addresses and ranks, as
    `lora.c` reads them; the tensors are kept for as long as the addresses are used."""

    table: np.ndarray
    panels: list[torch.Tensor]


class CpuLora(ReadInPlace):
    """A `LoraKernel`. Not thread-safe, but for `pack`."""

    def __init__(
        self, groups: Sequence[tuple[int, Sequence[int]]], dtype: torch.dtype = torch.float32
    ) -> None:
        """`groups`: (in, widths of the slices) of each linear layer; a fused one has several."""
        self._dtype = dtype
        self._widths = [np.array(widths, dtype=np.int64) for _, widths in groups]
        self._widths_at = [(len(w), w.ctypes.data) for w in self._widths]
        self._stride = 2 + 2 * max(len(widths) for _, widths in groups)
        self._scratch = torch.empty(0)
        self._kept: list[np.ndarray] = []  # what the addresses in `_step` point to
        self._step = np.zeros(8, dtype=np.int64)  # LoraStep of kernels.h
        self._step[7] = kind_of(dtype)
        self._step_at = self._step.ctypes.data

    def pack(self, groups: Groups) -> PackedAdapter:
        table = np.zeros((len(groups), self._stride), dtype=np.int64)
        kept: list[torch.Tensor] = []
        for row, slices in zip(table, groups, strict=True):
            stack = [pair[0] for pair in slices if pair is not None]
            if not stack:
                continue
            shrink = pack(torch.cat(stack), self._dtype, threads=1)
            kept.append(shrink)
            row[:2] = shrink.data_ptr(), sum(len(a) for a in stack)
            for index, pair in enumerate(slices):
                if pair is not None:
                    expand = pack(pair[1], self._dtype, threads=1)
                    kept.append(expand)
                    row[2 + 2 * index : 4 + 2 * index] = expand.data_ptr(), pair[1].shape[1]
        return PackedAdapter(table, kept)

    def size(self, packed: PackedAdapter) -> int:
        return sum(t.numel() * t.element_size() for t in packed.panels)

    def begin(
        self,
        spans: Sequence[tuple[int, int]],
        adapters: Sequence[PackedAdapter],
        *,
        decoding: bool = False,
    ) -> None:
        self._step[0] = len(adapters)
        if not adapters:
            return
        table = np.stack([a.table for a in adapters], axis=1)  # [groups, segments, stride]
        rows = np.array(spans, dtype=np.int64)
        tokens, rank = int(rows.max()), int(table[:, :, 1].max())
        if self._scratch.numel() < tokens * rank:
            self._scratch = torch.empty(tokens * rank)
        self._kept = [rows, table]
        self._step[1:7] = (
            *(rows.ctypes.data, table.ctypes.data, table.strides[0], self._stride),
            *(self._scratch.data_ptr(), rank),
        )

    def linear(self, base: torch.nn.Module, group: int, x: torch.Tensor) -> torch.Tensor:
        """x is float32."""
        if not isinstance(base, PackedLinear):
            raise TypeError("adapters on the CPU need packed linear layers")
        return base.adapted(x, *self._widths_at[group], group, self._step_at)
