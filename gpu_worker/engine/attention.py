"""transformers' AttentionInterface → our paged KV cache.

A step is one packed row of tokens of many sequences. Each attention layer calls `paged_attention`
with the row's queries, keys and values; the step's metadata reaches it through `STEP`, because not
every model passes extra arguments through to its attention. Window, soft cap, sinks and scale come
with each call: they differ by layer.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.request import ModelRefused
from kernels.cpu.attention import decode_attention, store_kv
from kernels.cpu.build import library

NAME = "loraplex_paged"


@dataclass(slots=True)
class PrefillSpan:
    """Rows `start:end` are tokens `first:first+n` of one sequence, whose cache is at `slots`."""

    start: int
    end: int
    first: int
    slots: torch.Tensor  # [first + n]


@dataclass(slots=True)
class StepMetadata:
    """Where the row's tokens are written and what each may read."""

    write_slots: torch.Tensor  # [tokens] slot of each row's key and value
    decode_rows: torch.Tensor  # [sequences] rows that are one new token of a sequence
    decode_tables: torch.Tensor  # int32 [sequences, most blocks], block numbers, padded with 0
    decode_lengths: torch.Tensor  # [sequences] context length, the new token included
    prefills: list[PrefillSpan]
    only_decode: bool  # decode_rows are all rows, in order
    decode_slots: torch.Tensor | None = None  # [sequences, longest], made when torch needs it
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)  # by window
    windows: dict[int, int | None] = field(default_factory=dict)  # by layer that was called


class KvCache:
    """Keys and values by layer: [slots, kv heads, head size], made when a layer is first met, or
    at once with the layers of another cache."""

    def __init__(self, slots: int, dtype: torch.dtype, like: "KvCache | None" = None) -> None:
        self.slots = slots
        self.dtype = dtype
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for index, (k, v) in (like.layers if like is not None else {}).items():
            self.layer(index, k, v)

    def layer(
        self, index: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The cache of a layer whose rows look like k, v: [tokens, kv heads, head size]."""
        if index not in self.layers:
            self.layers[index] = (
                k.new_zeros(self.slots, *k.shape[1:], dtype=self.dtype),
                v.new_zeros(self.slots, *v.shape[1:], dtype=self.dtype),
            )
        return self.layers[index]

    def bytes_per_token(self) -> int:
        return sum(t[0].numel() * t.element_size() for pair in self.layers.values() for t in pair)


class _Current:
    """The step that is being computed. The engine is single-threaded: one at a time."""

    metadata: StepMetadata | None = None
    cache: KvCache | None = None


STEP = _Current()


@dataclass(slots=True)
class _Form:
    """What differs between attention layers."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None  # one logit a head

    @property
    def plain(self) -> bool:
        """Whether torch's fused attention computes it."""
        return self.softcap is None and self.sinks is None


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, d]; key, value [1, kv heads, tokens, d] → [1, tokens, heads, d]."""
    meta, cache = STEP.metadata, STEP.cache
    if meta is None or cache is None:
        raise RuntimeError("paged attention was called outside an engine step")
    if not getattr(module, "is_causal", True):
        raise ModelRefused(f"{type(module).__name__} attends to later tokens")
    meta.windows[module.layer_idx] = sliding_window  # type: ignore[index]
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # [tokens, heads, d]
    keys, values = cache.layer(module.layer_idx, k, v)  # type: ignore[arg-type]
    form = _Form(
        q.shape[-1] ** -0.5 if scaling is None else float(scaling),
        sliding_window,
        softcap,
        None if s_aux is None else s_aux.detach().float(),
    )
    compiled = q.device.type == "cpu" and q.dtype == torch.float32 and library() is not None
    if compiled:
        store_kv(k, v, keys, values, meta.write_slots)
    else:
        keys.index_copy_(0, meta.write_slots, k.to(keys.dtype))
        values.index_copy_(0, meta.write_slots, v.to(values.dtype))
    decode = _decode_compiled if compiled else _decode
    if meta.only_decode:
        return decode(q, keys, values, meta, form)[None], None
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    if len(meta.decode_rows):
        out[meta.decode_rows] = decode(q[meta.decode_rows], keys, values, meta, form)
    for span in meta.prefills:
        rows = q[span.start : span.end]
        out[span.start : span.end] = _prefill(rows, keys, values, span, form)
    return out[None], None


def _decode_compiled(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, meta: StepMetadata, form: _Form
) -> torch.Tensor:
    return decode_attention(
        q,
        keys,
        values,
        meta.decode_tables,
        meta.decode_lengths,
        block=BLOCK,
        scale=form.scale,
        softcap=form.softcap or 0.0,
        window=form.window or 0,
        sinks=form.sinks,
    )


def _decode(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, meta: StepMetadata, form: _Form
) -> torch.Tensor:
    """One token a sequence: q [sequences, heads, d] → [sequences, heads, dv]."""
    if meta.decode_slots is None:
        tables = meta.decode_tables.long()[:, :, None] * BLOCK
        meta.decode_slots = (tables + torch.arange(BLOCK, device=q.device)).flatten(1)
    # The heads that share a kv head become its queries: no key or value is repeated.
    kv_heads = keys.shape[1]
    grouped = q.unflatten(1, (kv_heads, q.shape[1] // kv_heads))
    context_k = keys[meta.decode_slots].transpose(1, 2).to(q.dtype)
    context_v = values[meta.decode_slots].transpose(1, 2).to(q.dtype)
    mask = _decode_mask(meta, form.window)
    if form.plain:
        attended = F.scaled_dot_product_attention(
            grouped, context_k, context_v, attn_mask=mask, scale=form.scale
        )
    else:
        sinks = None if form.sinks is None else form.sinks.view(kv_heads, -1, 1)
        attended = _spelled_out(grouped, context_k, context_v, mask, form, sinks)
    return attended.flatten(1, 2)


def _prefill(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, span: PrefillSpan, form: _Form
) -> torch.Tensor:
    """Some tokens of one sequence: q [n, heads, d] → [n, heads, dv]."""
    context_k = keys[span.slots].transpose(0, 1).to(q.dtype)
    context_v = values[span.slots].transpose(0, 1).to(q.dtype)
    heads, kv_heads = q.shape[1], keys.shape[1]
    whole = span.first == 0 and (form.window is None or len(span.slots) <= form.window)
    mask = None if whole and form.plain else _prefill_mask(span, form.window, q.device)
    if form.plain:
        attended = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None],
            context_k[None],
            context_v[None],
            attn_mask=mask,
            is_causal=mask is None,
            scale=form.scale,
            enable_gqa=heads != kv_heads,
        )[0]
    else:
        grouped = q.transpose(0, 1).unflatten(0, (kv_heads, heads // kv_heads))
        sinks = None if form.sinks is None else form.sinks.view(kv_heads, -1, 1, 1)
        assert mask is not None
        attended = _spelled_out(
            grouped, context_k[:, None], context_v[:, None], mask, form, sinks
        ).flatten(0, 1)
    return attended.transpose(0, 1)


def _spelled_out(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor,
    form: _Form,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """softmax(softcap(q·kᵀ)) · v, with sinks as further logits that have no value (gpt-oss)."""
    scores = (q @ k.transpose(-1, -2)).float() * form.scale
    if form.softcap is not None:
        scores = form.softcap * torch.tanh(scores / form.softcap)
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.expand(*scores.shape[:-1], 1)], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : k.shape[-2]]
    return weights.to(v.dtype) @ v


def _decode_mask(meta: StepMetadata, window: int | None) -> torch.Tensor:
    """[sequences, 1, 1, longest] True where a context token exists (and is in the window)."""
    if window not in meta.masks:
        assert meta.decode_slots is not None
        place = torch.arange(meta.decode_slots.shape[1], device=meta.decode_slots.device)
        length = meta.decode_lengths[:, None]
        mask = place < length
        if window is not None:
            mask &= place >= length - window
        meta.masks[window] = mask[:, None, None, :]
    return meta.masks[window]


def _prefill_mask(span: PrefillSpan, window: int | None, device: torch.device) -> torch.Tensor:
    """[n, first + n] causal, from the tokens' true positions."""
    at = torch.arange(span.first, len(span.slots), device=device)[:, None]
    place = torch.arange(len(span.slots), device=device)[None]
    mask = place <= at
    return mask if window is None else mask & (place > at - window)


AttentionInterface.register(NAME, paged_attention)
