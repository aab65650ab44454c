"""Grouped LoRA: many adapters of any ranks in one launch for all slices of a fused layer.

After Punica's SGMV (arXiv:2310.18547) and SGLang's chunked form of it: rows lie sorted by adapter;
tiles of up to BLOCK_M rows of one adapter are the unit of work. `shrink` sums x·Aᵀ over fixed
pieces of the input into partial results, `expand` adds them up in order and adds h·Bᵀ to the base's
output: no atomics, so that the same rows always give the same bits. Where an adapter's weights are
is read from tables, one row a slot: nothing is padded to the largest rank, and a captured CUDA
graph serves whatever adapters its slots hold later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from kernels.grouped_lora import Groups
from kernels.transfer import to_device

MAX_RANK = 256
USUAL_RANK = 16  # of every layer: what one slot holds
_ALIGN = 16  # bytes; wide loads want it
SPLIT_K = 1024  # input features that one program sums
DECODE_TILE, PREFILL_TILE = 16, 64  # rows
_PROGRAMS = 32  # that share the tiles: few are idle where tiles are few, as in most captured steps


@triton.jit(do_not_specialize=["tokens"])
def _shrink_kernel(
    x, tiles, weights, ranks, partials, x_row, tokens,
    FIRST: tl.constexpr, SLICES: tl.constexpr, ALL: tl.constexpr, K: tl.constexpr,
    SPLIT_K: tl.constexpr, MAX_RANK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """partials[split, slice, row, :rank] = x[row, split] · A[:, split]ᵀ, tile after tile."""
    piece, split = tl.program_id(1), tl.program_id(2)
    m, r, k = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    end = tl.minimum(split * SPLIT_K + SPLIT_K, K)
    for tile in range(1 + tl.program_id(0), 1 + tl.load(tiles), tl.num_programs(0)):
        row0 = tl.load(tiles + tile * 3).to(tl.int64)
        count = tl.load(tiles + tile * 3 + 1)
        place = tl.load(tiles + tile * 3 + 2).to(tl.int64) * ALL + FIRST + piece
        rank = tl.load(ranks + place)
        a = tl.load(weights + place * 2).to(tl.pointer_type(x.dtype.element_ty))
        a = tl.multiple_of(a, 16)
        rows = (row0 + m)[:, None]
        to = partials + ((split * SLICES + piece) * tokens + rows) * MAX_RANK
        for r0 in range(0, rank, BLOCK_R):
            kept = (r0 + r) < rank
            h = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
            for k0 in range(split * SPLIT_K, end, BLOCK_K):
                inside = (k0 + k) < end
                left = tl.load(
                    x + rows * x_row + (k0 + k)[None, :],
                    (m < count)[:, None] & inside[None, :],
                    other=0.0,
                )
                right = tl.load(
                    a + (r0 + r)[None, :] * K + (k0 + k)[:, None],
                    kept[None, :] & inside[:, None],
                    other=0.0,
                )
                h = tl.dot(left, right, h, input_precision="ieee")
            tl.store(to + (r0 + r)[None, :], h, (m < count)[:, None] & kept[None, :])


@triton.jit(do_not_specialize=["tokens"])
def _expand_kernel(
    y, tiles, weights, ranks, partials, blocks, y_row, tokens,
    FIRST: tl.constexpr, SLICES: tl.constexpr, ALL: tl.constexpr, SPLITS: tl.constexpr,
    ALIGN: tl.constexpr, MAX_RANK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y[row, columns of a slice] += (sum of partials) · B, tile after tile; B [rank, width]."""
    block = tl.program_id(1)
    piece = tl.load(blocks + block * 4)
    column = tl.multiple_of(tl.load(blocks + block * 4 + 1), ALIGN)  # in y
    inside = tl.multiple_of(tl.load(blocks + block * 4 + 2), ALIGN)  # in the slice
    width = tl.multiple_of(tl.load(blocks + block * 4 + 3), ALIGN)  # of the slice
    m, r, n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_N)
    for tile in range(1 + tl.program_id(0), 1 + tl.load(tiles), tl.num_programs(0)):
        row0 = tl.load(tiles + tile * 3).to(tl.int64)
        count = tl.load(tiles + tile * 3 + 1)
        place = tl.load(tiles + tile * 3 + 2).to(tl.int64) * ALL + FIRST + piece
        rank = tl.load(ranks + place)
        if rank > 0:
            b = tl.load(weights + place * 2 + 1).to(tl.pointer_type(y.dtype.element_ty))
            b = tl.multiple_of(b, 16)
            rows = (row0 + m)[:, None]
            added = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
            for r0 in range(0, rank, BLOCK_R):
                kept = (r0 + r) < rank
                h = tl.zeros([BLOCK_M, BLOCK_R], tl.float32)
                for split in tl.static_range(SPLITS):
                    place_of = ((split * SLICES + piece) * tokens + rows) * MAX_RANK
                    h += tl.load(
                        partials + place_of + (r0 + r)[None, :],
                        (m < count)[:, None] & kept[None, :],
                        other=0.0,
                    )
                right = tl.load(
                    b + (r0 + r)[:, None] * width + (inside + n)[None, :],
                    kept[:, None] & (inside + n < width)[None, :],
                    other=0.0,
                )
                added = tl.dot(h.to(right.dtype), right, added, input_precision="ieee")
            at = y + rows * y_row + (column + n)[None, :]
            mask = (m < count)[:, None] & (inside + n < width)[None, :]
            tl.store(at, (tl.load(at, mask).to(tl.float32) + added).to(y.dtype.element_ty), mask)


@dataclass(eq=False, slots=True)
class HostAdapter:
    """All of an adapter's weights as one run of memory, pinned where there is a GPU to copy to."""

    flat: torch.Tensor
    offsets: list[tuple[int, int]]  # of A [rank, in] and B [rank, out] in it, by slice
    ranks: list[int]


@dataclass(eq=False, slots=True)
class PlacedAdapter:
    """An adapter on the device, in row `slot` of the tables."""

    slot: int
    flat: torch.Tensor
    rank: int = 0  # the largest
    copied: torch.cuda.Event | None = None  # until the step's stream has waited for it


class GpuLora:
    """The `LoraKernel` of GPUs. A slot is a row of two tables: where weights are, and ranks."""

    def __init__(
        self,
        groups: Sequence[tuple[int, Sequence[int]]],
        dtype: torch.dtype,
        device: torch.device,
        *,
        slots: int,
        max_rows: int,
        fixed_tiles: bool = False,
    ) -> None:
        """`groups`: (in, widths of the slices) of each linear layer; `max_rows` of any step;
        `fixed_tiles`: as large for prompts as for decoding."""
        self._dtype, self._device = dtype, device
        sizes = [k + width for k, widths in groups for width in widths]
        self.slot_bytes = USUAL_RANK * sum(sizes) * dtype.itemsize + 2 * _ALIGN * len(sizes)
        self._in = [k for k, _ in groups]
        self._slices = [len(widths) for _, widths in groups]
        self._first = [sum(self._slices[:i]) for i in range(len(groups))]
        self._all = sum(self._slices)
        self._blocks = [_column_blocks(widths).to(device) for _, widths in groups]
        self._align = [16 if all(w % 16 == 0 for w in widths) else 1 for _, widths in groups]
        self._weights = torch.zeros(slots, self._all, 2, dtype=torch.int64, device=device)
        self._ranks = torch.zeros(slots, self._all, dtype=torch.int32, device=device)
        self._free = list(range(slots))[::-1]
        # The first row holds their number; then (first row, rows, slot) of each.
        self._tiles = torch.zeros(1 + max_rows, 3, dtype=torch.int32, device=device)
        self._fixed_tiles = fixed_tiles
        self._step: Sequence[PlacedAdapter] = ()  # keeps what the step's addresses point to
        self._programs = 0  # of the step, for its tiles
        self._tile = DECODE_TILE
        self.variant = 16  # ranks that a program takes at once: what a captured step depends on
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def pack(self, groups: Groups) -> HostAdapter:
        pairs = [pair for slices in groups for pair in slices]
        parts, offsets, ranks, at = [], [], [], 0
        align = _ALIGN // self._dtype.itemsize
        for pair in pairs:
            place = []
            for matrix in (pair[0], pair[1].t()) if pair is not None else ():
                place.append(at)
                padding = -matrix.numel() % align
                parts += [
                    matrix.to(self._dtype).reshape(-1),
                    torch.zeros(padding, dtype=self._dtype),
                ]
                at += matrix.numel() + padding
            offsets.append((place[0], place[1]) if pair is not None else (0, 0))
            ranks.append(len(pair[0]) if pair is not None else 0)
        flat = torch.cat([p.cpu() for p in parts]) if parts else torch.zeros(1, dtype=self._dtype)
        if self._copies is not None:
            with torch.cuda.device(self._device):  # another thread's current device is the first
                flat = flat.pin_memory()
        return HostAdapter(flat, offsets, ranks)

    def size(self, packed: HostAdapter) -> int:
        return packed.flat.numel() * packed.flat.element_size()

    def place(self, packed: HostAdapter) -> PlacedAdapter:
        """One copy, beside the running step; the next one that uses it waits on the device."""
        slot = self._free.pop()
        if self._copies is None:
            placed = PlacedAdapter(slot, packed.flat.to(self._device))
        else:
            with torch.cuda.stream(self._copies):
                placed = PlacedAdapter(slot, packed.flat.to(self._device, non_blocking=True))
                placed.copied = self._copies.record_event()
            placed.flat.record_stream(torch.cuda.current_stream(self._device))
        start, size = placed.flat.data_ptr(), placed.flat.element_size()
        where = [(start + a * size, start + b * size) for a, b in packed.offsets]
        self._weights[slot] = to_device(torch.tensor(where, dtype=torch.int64), self._device)
        self._ranks[slot] = to_device(torch.tensor(packed.ranks, dtype=torch.int32), self._device)
        placed.rank = max(packed.ranks)
        return placed

    def drop(self, placed: PlacedAdapter) -> None:
        self._free.append(placed.slot)

    def begin(
        self,
        spans: Sequence[tuple[int, int]],
        adapters: Sequence[PlacedAdapter],
        *,
        decoding: bool = False,
    ) -> None:
        self._step = adapters
        self._programs = 0
        if not adapters:
            return
        for adapter in adapters:
            if adapter.copied is not None:
                torch.cuda.current_stream(self._device).wait_event(adapter.copied)
                adapter.copied = None
        self._tile = DECODE_TILE if decoding or self._fixed_tiles else PREFILL_TILE
        self.variant = 16 if max(adapter.rank for adapter in adapters) <= 16 else 64
        tiles = [
            (row, min(self._tile, end - row), adapter.slot)
            for (start, end), adapter in zip(spans, adapters, strict=True)
            for row in range(start, end, self._tile)
        ]
        self._programs = min(len(tiles), _PROGRAMS)
        table = torch.tensor([(len(tiles), 0, 0), *tiles], dtype=torch.int32)
        self._tiles[: len(table)] = to_device(table, self._device)

    def fixed(self, rows: int) -> None:
        """Launch for any adapters of `rows` rows, whatever `begin` has said: for graphs, whose
        launches can't change. How many tiles there are is read on the device."""
        self._programs = min(rows, _PROGRAMS)

    def linear(self, base: torch.nn.Module, group: int, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = base(x)
        if self._programs:
            rows, y = x.reshape(-1, x.shape[-1]), result.view(-1, result.shape[-1])
            self._add(y, rows if rows.stride(1) == 1 else rows.contiguous(), group)
        return result

    def _add(self, y: torch.Tensor, x: torch.Tensor, group: int) -> None:
        k, slices, blocks = self._in[group], self._slices[group], self._blocks[group]
        splits = triton.cdiv(k, SPLIT_K)
        partials = x.new_empty(splits, slices, len(x), MAX_RANK, dtype=torch.float32)
        tables = self._tiles, self._weights, self._ranks, partials
        _shrink_kernel[(self._programs, slices, splits)](
            *(x, *tables, x.stride(0), len(x)),
            *(self._first[group], slices, self._all, k, SPLIT_K, MAX_RANK),
            *(self._tile, self.variant, 128 if self.variant == 16 else 64),
            num_warps=4,
        )
        _expand_kernel[(self._programs, len(blocks))](
            *(y, *tables, blocks, y.stride(0), len(x)),
            *(self._first[group], slices, self._all, splits, self._align[group], MAX_RANK),
            *(self._tile, self.variant, _BLOCK_N),
            num_warps=4,
        )


_BLOCK_N = 128  # columns of the output that one program writes


def _column_blocks(widths: Sequence[int]) -> torch.Tensor:
    """int32 [blocks, 4]: slice, first column in the layer and in the slice, width of the slice."""
    rows, start = [], 0
    for index, width in enumerate(widths):
        for inside in range(0, width, _BLOCK_N):
            rows.append((index, start + inside, inside, width))
        start += width
    return torch.tensor(rows, dtype=torch.int32)
