"""Paged attention and the store of keys and values.

Keys and values lie in [slots, kv heads, d]; a sequence's tokens are found by its table of block
numbers. Decoding splits each context into pieces of a fixed size (flash decoding, Dao et al. 2023)
and joins them in a second kernel, so that a row's result depends neither on the batch nor on how
many programs share the work. Prompts go through FlashAttention-2 (arXiv:2307.08691) tile by tile.
"""

import torch
import triton
import triton.language as tl

from kernels.layout import heads_together

SPLIT = 256  # tokens of context that a program attends to at once
_PROGRAMS = 512  # enough for every multiprocessor, with some left to hide latency
_FEWEST = 4  # that share a sequence: one long context among short ones would be a long way


@triton.jit
def _store_kernel(
    k, v, keys, values, slots, k_row, v_row, K: tl.constexpr, V: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    at = tl.arange(0, WIDTH)
    key = tl.load(k + row * k_row + at, at < K)
    tl.store(keys + slot * K + at, key.to(keys.dtype.element_ty), at < K)
    value = tl.load(v + row * v_row + at, at < V)
    tl.store(values + slot * V + at, value.to(values.dtype.element_ty), at < V)


@triton.jit
def _capped(scores, SOFTCAP: tl.constexpr):
    """SOFTCAP * tanh(scores / SOFTCAP); 0 is none."""
    if SOFTCAP > 0:
        e = tl.exp(-2 * tl.abs(scores) / SOFTCAP)
        tanh = (1 - e) / (1 + e)
        scores = SOFTCAP * tl.where(scores < 0, -tanh, tanh)
    return scores


@triton.jit
def _attend(
    q, keys, values, table, kv_head, at, visible, best, total, mixed,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """One block of context tokens (positions `at`, `visible` [rows, tokens]) for the rows of q."""
    seen = tl.max(visible.to(tl.int32), 0) > 0
    block = tl.load(table + at // PAGE, seen, other=0).to(tl.int64)
    row = (block * PAGE + at % PAGE) * KV_HEADS + kv_head
    d, dv = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    key_mask = seen[None, :] & (d < D)[:, None]
    key = tl.load(keys + row[None, :] * D + d[:, None], key_mask, other=0.0)
    scores = tl.dot(q, key.to(q.dtype), input_precision="ieee") * SCALE
    scores = tl.where(visible, _capped(scores, SOFTCAP), float("-inf"))
    # A row that has seen nothing yet keeps the start values: no infinity minus infinity.
    highest = tl.maximum(best, tl.max(scores, 1))
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    weights = tl.exp(scores - shift[:, None])
    fade = tl.exp(best - shift)
    value_mask = seen[:, None] & (dv < DV)[None, :]
    value = tl.load(values + row[:, None] * DV + dv[None, :], value_mask, other=0.0)
    mixed = tl.dot(
        weights.to(q.dtype), value.to(q.dtype), mixed * fade[:, None], input_precision="ieee"
    )
    return highest, total * fade + tl.sum(weights, 1), mixed


@triton.jit(do_not_specialize=["splits"])
def _decode_kernel(
    q, keys, values, tables, lengths, mixes, logsums, q_row, table_row, splits,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, WINDOW: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_N: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The heads of one kv head of one sequence, over every `programs`th piece of its context."""
    sequence, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    group: tl.constexpr = HEADS // KV_HEADS
    h, d, dv = tl.arange(0, BLOCK_H), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    head = kv_head * group + h
    mine = h < group
    query = tl.load(
        q + sequence * q_row + head[:, None] * D + d[None, :],
        mine[:, None] & (d < D)[None, :],
        other=0.0,
    )
    length = tl.load(lengths + sequence)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0)
    for split in range(
        first // SPLIT + tl.program_id(2), tl.cdiv(length, SPLIT), tl.num_programs(2)
    ):
        best = tl.full([BLOCK_H], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_H], tl.float32)
        mixed = tl.zeros([BLOCK_H, BLOCK_DV], tl.float32)
        # Blocks before the window are skipped; to compute them would change nothing.
        start = tl.maximum(split * SPLIT, first // BLOCK_N * BLOCK_N)
        for n in range(start, tl.minimum(split * SPLIT + SPLIT, length), BLOCK_N):
            at = n + tl.arange(0, BLOCK_N)
            visible = ((at >= first) & (at < length))[None, :] & mine[:, None]
            best, total, mixed = _attend(
                query, keys, values, tables + sequence * table_row, kv_head, at, visible,
                best, total, mixed, SCALE, SOFTCAP, KV_HEADS, PAGE, D, DV, BLOCK_D, BLOCK_DV,
            )  # fmt: skip
        place = (sequence * HEADS + head) * splits + split
        some = tl.where(total > 0, total, 1.0)
        tl.store(
            mixes + place[:, None] * DV + dv[None, :],
            mixed / some[:, None],
            mine[:, None] & (dv < DV)[None, :],
        )
        tl.store(logsums + place, best + tl.log(some), mine)


@triton.jit(do_not_specialize=["splits"])
def _join_kernel(
    mixes, logsums, lengths, sinks, out, splits,
    WINDOW: tl.constexpr, SINKS: tl.constexpr, HEADS: tl.constexpr,
    DV: tl.constexpr, BLOCK_DV: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The pieces of one head of one sequence, in their order; a sink is a logit without a value."""
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + sequence)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0)
    dv = tl.arange(0, BLOCK_DV)
    if SINKS:
        best = tl.zeros([1], tl.float32) + tl.load(sinks + head)
        total = tl.full([1], 1.0, tl.float32)
    else:
        best = tl.full([1], float("-inf"), tl.float32)
        total = tl.zeros([1], tl.float32)
    mixed = tl.zeros([BLOCK_DV], tl.float32)
    for split in range(first // SPLIT, tl.cdiv(length, SPLIT)):
        place = (sequence * HEADS + head) * splits + split
        logsum = tl.load(logsums + place)
        highest = tl.maximum(best, logsum)
        fade, weight = tl.exp(best - highest), tl.exp(logsum - highest)
        piece = tl.load(mixes + place * DV + dv, dv < DV, other=0.0)
        mixed = mixed * fade + piece * weight
        total = total * fade + weight
        best = highest
    row = out + (sequence * HEADS + head) * DV
    tl.store(row + dv, (mixed / total).to(out.dtype.element_ty), dv < DV)


@triton.jit
def _prefill_kernel(
    q, keys, values, tables, tiles, sinks, out, q_row, out_row, table_row,
    SCALE: tl.constexpr, SOFTCAP: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, PAGE: tl.constexpr,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One head of one tile: up to BLOCK_M neighbouring tokens of one sequence."""
    tile, head = tl.program_id(0), tl.program_id(1)
    row0 = tl.load(tiles + tile * 4).to(tl.int64)
    count = tl.load(tiles + tile * 4 + 1)
    position = tl.load(tiles + tile * 4 + 2)
    sequence = tl.load(tiles + tile * 4 + 3).to(tl.int64)
    m, d, dv = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_DV)
    mine = m < count
    query = tl.load(
        q + (row0 + m)[:, None] * q_row + head * D + d[None, :],
        mine[:, None] & (d < D)[None, :],
        other=0.0,
    )
    if SINKS:
        best = tl.zeros([BLOCK_M], tl.float32) + tl.load(sinks + head)
        total = tl.full([BLOCK_M], 1.0, tl.float32)
    else:
        best = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    start = 0
    if WINDOW > 0:
        start = tl.maximum(position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    where = position + m
    for n in range(start, position + count, BLOCK_N):
        at = n + tl.arange(0, BLOCK_N)
        visible = (at[None, :] <= where[:, None]) & mine[:, None]
        if WINDOW > 0:
            visible &= at[None, :] > where[:, None] - WINDOW
        best, total, mixed = _attend(
            query, keys, values, tables + sequence * table_row, head // (HEADS // KV_HEADS), at,
            visible, best, total, mixed, SCALE, SOFTCAP, KV_HEADS, PAGE, D, DV, BLOCK_D, BLOCK_DV,
        )  # fmt: skip
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    place = out + (row0 + m)[:, None] * out_row + head * DV + dv[None, :]
    tl.store(place, mixed.to(out.dtype.element_ty), mine[:, None] & (dv < DV)[None, :])


def store_kv(
    k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Rows k [tokens, kv heads, d], v [tokens, kv heads, dv] → their slots of the cache."""
    k, v = heads_together(k), heads_together(v)
    sizes = keys[0].numel(), values[0].numel()
    width = triton.next_power_of_2(max(sizes))
    _store_kernel[(len(k),)](k, v, keys, values, slots, k.stride(0), v.stride(0), *sizes, width)


def decode_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    *,
    block: int,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """One new token a sequence. q [sequences, heads, d] → [sequences, heads, dv] in q's dtype.

    tables: int32 [sequences, blocks]; lengths: [sequences], the new token counted; window 0: all of
    the context; softcap 0: none; sinks: float32 [heads].
    """
    q = heads_together(q)
    sequences, heads, d = q.shape
    kv_heads, dv = values.shape[1:]
    splits = triton.cdiv(tables.shape[1] * block, SPLIT)
    mixes = q.new_empty(sequences, heads, splits, dv, dtype=torch.float32)
    logsums = q.new_empty(sequences, heads, splits, dtype=torch.float32)
    out = q.new_empty(sequences, heads, dv)
    block_d, block_dv, block_n = _blocks(d, dv, q.dtype)
    programs = min(splits, max(_FEWEST, _PROGRAMS // (sequences * kv_heads)))
    _decode_kernel[(sequences, kv_heads, programs)](
        *(q, keys, values, tables, lengths, mixes, logsums),
        *(q.stride(0), tables.stride(0), splits),
        *(scale, softcap, window, heads, kv_heads, block, d, dv, block_d, block_dv),
        max(16, triton.next_power_of_2(heads // kv_heads)),
        block_n,
        SPLIT,
        num_warps=4,
    )
    _join_kernel[(sequences, heads)](
        *(mixes, logsums, lengths, sinks if sinks is not None else logsums, out, splits),
        *(window, sinks is not None, heads, dv, block_dv, SPLIT),
        num_warps=1,
    )
    return out


PREFILL_TILE = 64  # tokens; 32 where heads are wide


def prefill_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    tiles: torch.Tensor,
    out: torch.Tensor,
    *,
    block: int,
    scale: float,
    softcap: float = 0.0,
    window: int = 0,
    sinks: torch.Tensor | None = None,
) -> None:
    """Tokens of prompts, causally: rows of q [tokens, heads, d] → of out [tokens, heads, dv].

    tiles: int32 [n, 4], each (first row, rows, position of the first, sequence), at most
    PREFILL_TILE rows of one sequence. Rows outside all tiles are left alone. The rest as above.
    """
    q = heads_together(q)
    _, heads, d = q.shape
    kv_heads, dv = values.shape[1:]
    block_d, block_dv, block_n = _blocks(d, dv, q.dtype)
    _prefill_kernel[(len(tiles), heads)](
        *(q, keys, values, tables, tiles, sinks if sinks is not None else q, out),
        *(q.stride(0), out.stride(0), tables.stride(0)),
        *(scale, softcap, window, sinks is not None, heads, kv_heads, block),
        *(d, dv, block_d, block_dv, PREFILL_TILE, block_n),
        num_warps=8 if block_d > 128 else 4,
    )


def prefill_tiles(spans: list[tuple[int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Rows for `tiles`. spans: (first row, rows, position of the first) of each sequence."""
    return [
        (row + at, min(PREFILL_TILE, rows - at), first + at, sequence)
        for sequence, (row, rows, first) in enumerate(spans)
        for at in range(0, rows, PREFILL_TILE)
    ]


def _blocks(d: int, dv: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Padded head sizes and how many context tokens are loaded at once."""
    block_d, block_dv = (max(16, triton.next_power_of_2(size)) for size in (d, dv))
    width = max(block_d, block_dv) * dtype.itemsize
    return block_d, block_dv, 64 if width <= 256 else 32 if width <= 512 else 16
