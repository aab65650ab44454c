"""The Triton kernels, run by Triton's interpreter, equal plain torch for every shape.

float32 and float16: the interpreter multiplies bfloat16 wrongly. `python -m benchmarks.gpu` checks
the same on a real GPU.
"""

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.gpu.attention import decode_attention, prefill_attention, prefill_tiles, store_kv
from kernels.gpu.linear import FixedTileLinear
from kernels.gpu.lora import GpuLora
from kernels.gpu.pointwise import rms_norm, rope_, silu_mul
from kernels.gpu.sampling import sample_tokens
from kernels.grouped_lora import TorchLora

DTYPES = st.sampled_from([torch.float32, torch.float16])
BLOCK = 16
CPU = torch.device("cpu")


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    loose = actual.dtype == torch.float16
    torch.testing.assert_close(
        actual.float(), expected.float(), rtol=1e-2 if loose else 1e-4, atol=1e-2 if loose else 1e-4
    )


def reference(q, k, v, first, *, scale, softcap, window, sinks):  # type: ignore[no-untyped-def]
    """q [n, heads, d] at positions `first`…, k and v [context, kv heads, ·], all in float32."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.float(), k.float(), v.float()
    scores = torch.einsum("nhd,chd->hnc", q, k.repeat_interleave(group, 1)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    at = first + torch.arange(len(q))[:, None]
    place = torch.arange(len(k))[None]
    seen = place <= at
    if window:
        seen &= place > at - window
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, len(q), 1)], -1)
    weights = scores.softmax(-1)[..., : len(k)]
    return torch.einsum("hnc,chd->nhd", weights, v.repeat_interleave(group, 1))


class Paged:
    """Contexts of several sequences, scattered over a cache."""

    def __init__(self, lengths: list[int], kv_heads: int, d: int, dv: int, dtype: torch.dtype):
        counts = [-(-n // BLOCK) for n in lengths]
        numbers = (torch.randperm(sum(counts)) + 1).tolist()
        self.tables = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
        self.keys = torch.full(((sum(counts) + 1) * BLOCK, kv_heads, d), 7.0, dtype=dtype)
        self.values = torch.full(((sum(counts) + 1) * BLOCK, kv_heads, dv), 7.0, dtype=dtype)
        self.contexts = []
        for row, (n, count) in enumerate(zip(lengths, counts, strict=True)):
            blocks = [numbers.pop() for _ in range(count)]
            self.tables[row, :count] = torch.tensor(blocks)
            at = torch.arange(n)
            slots = torch.tensor(blocks)[at // BLOCK] * BLOCK + at % BLOCK
            k, v = (torch.randn(n, kv_heads, size).to(dtype) for size in (d, dv))
            store_kv(k, v, self.keys, self.values, slots)
            self.contexts.append((k, v))


SHAPES = st.sampled_from([(1, 1, 16, 16), (4, 2, 32, 32), (9, 3, 64, 64), (2, 1, 80, 48)])
FORM = {
    "softcap": st.sampled_from([0.0, 5.0]),
    "window": st.sampled_from([0, 1, 37, 300]),
    "sinks": st.booleans(),
}


@settings(deadline=None, max_examples=12)
@given(
    lengths=st.lists(st.integers(1, 600), min_size=1, max_size=4),
    shape=SHAPES,
    dtype=DTYPES,
    **FORM,
)
def test_decode_attention(lengths, shape, dtype, softcap, window, sinks) -> None:  # type: ignore[no-untyped-def]
    heads, kv_heads, d, dv = shape
    paged = Paged(lengths, kv_heads, d, dv, dtype)
    q = torch.randn(len(lengths), heads, d).to(dtype)
    form = {"scale": d**-0.5, "softcap": softcap, "window": window}
    form["sinks"] = torch.randn(heads) if sinks else None

    def run(rows: slice) -> torch.Tensor:
        length = torch.tensor(lengths, dtype=torch.int32)[rows]
        return decode_attention(
            q[rows], paged.keys, paged.values, paged.tables[rows], length, block=BLOCK, **form
        )

    out = run(slice(None))
    for row, (k, v) in enumerate(paged.contexts):
        close(out[row], reference(q[row : row + 1], k, v, lengths[row] - 1, **form)[0])
    assert torch.equal(out[-1:], run(slice(len(lengths) - 1, None))), "the batch changed a row"


@settings(deadline=None, max_examples=12)
@given(
    spans=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 150)), min_size=1, max_size=3),
    shape=SHAPES,
    dtype=DTYPES,
    **FORM,
)
def test_prefill_attention(spans, shape, dtype, softcap, window, sinks) -> None:  # type: ignore[no-untyped-def]
    heads, kv_heads, d, dv = shape
    paged = Paged([first + n for first, n in spans], kv_heads, d, dv, dtype)
    starts = [0, *itertools.accumulate(n + 1 for _, n in spans)]  # a row between is another's
    q = torch.randn(starts[-1], heads, d).to(dtype)
    form = {"scale": d**-0.5, "softcap": softcap, "window": window}
    form["sinks"] = torch.randn(heads) if sinks else None
    tiles = prefill_tiles([(s, n, first) for s, (first, n) in zip(starts, spans, strict=False)])
    out = torch.full((starts[-1], heads, dv), 3.0, dtype=dtype)
    prefill_attention(
        *(q, paged.keys, paged.values, paged.tables, torch.tensor(tiles, dtype=torch.int32), out),
        block=BLOCK,
        **form,
    )
    for start, (first, n), (k, v) in zip(starts, spans, paged.contexts, strict=False):
        close(out[start : start + n], reference(q[start : start + n], k, v, first, **form))
        assert (out[start + n] == 3).all(), "a row outside the tiles was written"


@settings(deadline=None, max_examples=12)
@given(
    rows=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    ranks=st.lists(st.sampled_from([0, 1, 8, 16, 33, 64]), min_size=8, max_size=8),
    base_rows=st.integers(0, 3),
    k=st.sampled_from([24, 130, 2100]),
    widths=st.sampled_from([(32,), (144, 16), (50, 7)]),
    dtype=DTYPES,
    chance=st.integers(1, 9),
)
def test_grouped_lora(rows, ranks, base_rows, k, widths, dtype, chance) -> None:  # type: ignore[no-untyped-def]
    tokens = sum(rows) + base_rows
    x = torch.randn(tokens, k).to(dtype)
    base = torch.nn.Linear(k, sum(widths), bias=False, dtype=dtype)
    other = (7, (16,))  # another layer before: its slices come first in the tables
    ours = GpuLora([other, (k, widths)], dtype, CPU, slots=6, max_rows=tokens)
    torchs = TorchLora([other, (k, widths)], dtype, CPU)
    spare = [ours.place(ours.pack([[None], [None] * len(widths)])) for _ in range(2)]
    ours.drop(spare[0])  # slots are used again
    placed, expected, spans, at = [], [], [], 0
    for segment, count in enumerate(rows):
        pairs = []
        for index, width in enumerate(widths):
            r = ranks[2 * segment + index]
            pair = (torch.randn(r, k) / k**0.5, torch.randn(width, r) / max(1, r) ** 0.5)
            pairs.append(tuple(t.to(dtype) for t in pair) if r else None)
        placed.append(ours.place(ours.pack([[None], pairs])))
        expected.append(torchs.pack([[None], pairs]))
        spans.append((at, at + count))
        at += count
    with torch.no_grad():
        ours.begin(spans, placed)
        torchs.begin(spans, expected)
        close(ours.linear(base, 1, x), torchs.linear(base, 1, x))
        ours.begin(spans, placed, decoding=True)  # as a graph: its launches are what they are
        ours.fixed(chance)
        close(ours.linear(base, 1, x), torchs.linear(base, 1, x))


def test_a_slot_holds_rank_16_of_every_layer() -> None:
    groups = [(24, (7, 33)), (130, (50,))]
    kernel = GpuLora(groups, torch.float16, CPU, slots=1, max_rows=1)
    for rank, slots in ((8, 1), (16, 1), (64, 4)):
        pairs = [[(torch.ones(rank, k), torch.ones(n, rank)) for n in ns] for k, ns in groups]
        assert -(-kernel.size(kernel.pack(pairs)) // kernel.slot_bytes) == slots


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 70),
    n=st.integers(1, 130),
    k=st.integers(1, 150),
    biased=st.booleans(),
    dtype=DTYPES,
)
def test_fixed_tile_linear(rows: int, n: int, k: int, biased: bool, dtype: torch.dtype) -> None:
    weight = (torch.randn(n, k) / k**0.5).to(dtype)
    bias = torch.randn(n).to(dtype) if biased else None
    x = torch.randn(rows, k).to(dtype)
    layer = FixedTileLinear(weight, bias)
    y = layer(x)
    wide = None if bias is None else bias.float()
    close(y, torch.nn.functional.linear(x.float(), weight.float(), wide))
    # Of the first row: the interpreter's own product depends on where in a tile a row lies.
    assert torch.equal(y[:1], layer(x[:1])), "the batch changed a row"


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 5), n=st.sampled_from([16, 24, 100, 576]), dtype=DTYPES)
def test_pointwise(rows: int, n: int, dtype: torch.dtype) -> None:
    x, weight = torch.randn(rows, n).to(dtype), torch.randn(n).to(dtype)
    norm = torch.nn.functional.rms_norm(x.float(), [n], weight.float(), 1e-5)
    close(rms_norm(x, weight, 1e-5), norm)
    gate, up = x.float().chunk(2, -1)
    close(silu_mul(x), torch.nn.functional.silu(gate) * up)
    heads = torch.randn(rows, 3, n).to(dtype)[:, :2]  # rows apart
    cos, sin = (t.repeat(1, 2).to(dtype) for t in torch.randn(2, rows, n // 2))
    turned = torch.cat([-heads[..., n // 2 :], heads[..., : n // 2]], -1)
    expected = heads * cos[:, None] + turned * sin[:, None]
    close(rope_(heads, cos, sin), expected)


def draw(logits: torch.Tensor, target: float, t=1.0, min_p=0.0, top_k=0, top_p=1.0) -> int:  # type: ignore[no-untyped-def]
    floats = (torch.full((len(logits),), f) for f in (t, target, min_p, top_p))
    heat, at, floor, nucleus = floats
    many = torch.full((len(logits),), top_k, dtype=torch.int32)
    return int(sample_tokens(logits, heat, at, floor, many, nucleus)[0])


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    target=st.floats(0, 0.999),
    t=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    top_k=st.sampled_from([0, 1, 5, 40]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    vocabulary=st.sampled_from([50, 4096, 5000]),
)
def test_sampling(seed, target, t, min_p, top_k, top_p, vocabulary) -> None:  # type: ignore[no-untyped-def]
    logits = 3 * torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(seed))
    token = draw(logits, target, t, min_p, top_k, top_p)
    if t == 0:
        assert token == logits.argmax()
        return
    p = torch.softmax(logits[0].double() / t, -1)
    order = p.argsort(descending=True)
    kept = order[p[order] >= min_p * p.max() * (1 - 1e-6)][: top_k or vocabulary]
    before = p[kept].cumsum(0) - p[kept]
    kept = kept[before < top_p * p[kept].sum() + 1e-6]
    assert token in kept
    left = torch.zeros_like(p)
    left[kept] = p[kept]
    share = left.cumsum(0) / left.sum()
    low = 0.0 if token == 0 else float(share[token - 1])
    assert low - 1e-2 <= target <= float(share[token]) + 1e-2
