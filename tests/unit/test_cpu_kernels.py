"""The C kernels equal torch, for every shape; a row's result doesn't depend on its neighbours."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.cpu.attention import decode_attention, store_kv
from kernels.cpu.build import library
from kernels.cpu.linear import PackedLinear
from kernels.cpu.lora import CpuLora
from kernels.cpu.pointwise import rms_norm, rope_, silu_mul
from kernels.grouped_lora import Segment, add_grouped_lora

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler")
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
BLOCK = 4


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 50),
    k=st.integers(1, 70),
    biased=st.booleans(),
    dtype=DTYPES,
)
def test_linear(m: int, n: int, k: int, biased: bool, dtype: torch.dtype) -> None:
    x, weight = torch.randn(m, k), torch.randn(n, k).to(dtype)
    bias = torch.randn(n) if biased else None
    layer = PackedLinear(weight, bias, dtype)
    y = layer(x)
    torch.testing.assert_close(y, F.linear(x, weight.float(), bias), rtol=1e-4, atol=1e-4)
    alone = torch.cat([layer(row[None]) for row in x])
    assert torch.equal(y, alone), "the batch changed a row"


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    ranks=st.lists(st.integers(0, 40), min_size=10, max_size=10),
    base_rows=st.integers(0, 3),
    dtype=DTYPES,
)
def test_grouped_lora(
    rows: list[int], ranks: list[int], base_rows: int, dtype: torch.dtype
) -> None:
    k, widths = 24, (150, 7)
    tokens = sum(rows) + base_rows
    x, weight = torch.randn(tokens, k), torch.randn(sum(widths), k).to(dtype)
    base, lora = PackedLinear(weight, None, dtype), CpuLora([(k, widths)], dtype)
    expected = base(x)
    adapters, spans, at = [], [], 0
    for segment, count in enumerate(rows):
        slices = []
        for index, width in enumerate(widths):
            r = ranks[2 * segment + index]
            pair = (torch.randn(r, k).to(dtype), torch.randn(width, r).to(dtype)) if r else None
            slices.append(pair)
            if pair is not None:
                column = sum(widths[:index])
                a, b = pair[0].float(), pair[1].float()
                part = expected[:, column : column + width]
                add_grouped_lora(part, x, [Segment(at, at + count, a, b)])
        adapters.append(lora.pack([slices]))
        spans.append((at, at + count))
        at += count
    lora.begin(spans, adapters)
    torch.testing.assert_close(lora.linear(base, 0, x), expected, rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    d=st.sampled_from([4, 8, 20, 64]),
    group=st.integers(1, 7),
    window=st.sampled_from([0, 1, 7]),
    softcap=st.sampled_from([0.0, 5.0]),
    with_sinks=st.booleans(),
    dtype=DTYPES,
)
def test_decode_attention(
    lengths: list[int],
    d: int,
    group: int,
    window: int,
    softcap: float,
    with_sinks: bool,
    dtype: torch.dtype,
) -> None:
    kv_heads, heads = 2, 2 * group
    blocks = [-(-n // BLOCK) for n in lengths]
    order = torch.randperm(sum(blocks)) + 1
    tables = torch.zeros(len(lengths), max(blocks), dtype=torch.int32)
    keys = torch.zeros((sum(blocks) + 1) * BLOCK, kv_heads, d, dtype=dtype)
    values = torch.zeros(len(keys), kv_heads, d + 4, dtype=dtype)
    q, sinks = torch.randn(len(lengths), heads, d), torch.randn(heads) if with_sinks else None
    expected, at = [], 0
    for i, n in enumerate(lengths):
        mine = order[at : at + blocks[i]]
        tables[i, : blocks[i]] = mine
        at += blocks[i]
        slots = (mine[:, None] * BLOCK + torch.arange(BLOCK)).flatten()[:n]
        k, v = torch.randn(n, kv_heads, d), torch.randn(n, kv_heads, d + 4)
        store_kv(k, v, keys, values, slots)
        k, v = (t.to(dtype).float().repeat_interleave(group, 1) for t in (k, v))
        scores = torch.einsum("hd,thd->ht", q[i], k) * 0.3
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        if window:
            scores[:, : max(0, n - window)] = float("-inf")
        if sinks is not None:
            scores = torch.cat([scores, sinks[:, None]], 1)
        expected.append(torch.einsum("ht,thd->hd", scores.softmax(-1)[:, :n], v))
    got = decode_attention(
        q,
        keys,
        values,
        tables,
        torch.tensor(lengths),
        block=BLOCK,
        scale=0.3,
        softcap=softcap,
        window=window,
        sinks=sinks,
    )
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 9), n=st.integers(1, 70))
def test_norm_and_gate(rows: int, n: int) -> None:
    x, weight = torch.randn(rows, n) * 3, torch.randn(n)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), F.rms_norm(x, (n,), weight, 1e-6))
    both = torch.randn(rows, 2 * n) * 20
    torch.testing.assert_close(silu_mul(both), F.silu(both[:, :n]) * both[:, n:])


def test_rope_as_transformers_does_it() -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    q, k = torch.randn(5, 3, 16), torch.randn(5, 1, 16)
    angle = torch.randn(5, 8).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    expected = apply_rotary_pos_emb(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], cos[None], sin[None]
    )
    for x, e in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rope_(x, cos, sin), e[0].transpose(0, 1))
