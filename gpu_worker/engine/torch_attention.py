"""Paged attention by torch's operations: for machines without kernels of ours, and what those
leave out. Also the reference for them."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from gpu_worker.engine.blocks import BLOCK


@dataclass(slots=True)
class PrefillSpan:
    """Rows `start:end` are tokens `first:first+n` of one sequence, whose cache is at `slots`."""

    start: int
    end: int
    first: int
    slots: torch.Tensor  # [first + n]


@dataclass(slots=True)
class Form:
    """What differs between attention layers."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None  # one logit a head

    @property
    def plain(self) -> bool:
        """Whether torch's fused attention computes it."""
        return self.softcap is None and self.sinks is None

    def for_kernels(self) -> dict[str, Any]:
        """As the arguments that kernels take; 0 is none."""
        return {
            "scale": self.scale,
            "softcap": self.softcap or 0.0,
            "window": self.window or 0,
            "sinks": self.sinks,
        }


def decode(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    form: Form,
    masks: dict[Any, torch.Tensor],
) -> torch.Tensor:
    """One token a sequence: q [sequences, heads, d] → [sequences, heads, dv].

    `masks` keeps what the layers of one step share.
    """
    if "slots" not in masks:
        within = torch.arange(BLOCK, device=q.device)
        masks["slots"] = (tables.long()[:, :, None] * BLOCK + within).flatten(1)
    slots = masks["slots"]
    # The heads that share a kv head become its queries: no key or value is repeated.
    kv_heads = keys.shape[1]
    grouped = q.unflatten(1, (kv_heads, q.shape[1] // kv_heads))
    context_k = keys[slots].transpose(1, 2).to(q.dtype)
    context_v = values[slots].transpose(1, 2).to(q.dtype)
    mask = _decode_mask(slots.shape[1], lengths, form.window, masks)
    if form.plain:
        attended = F.scaled_dot_product_attention(
            grouped, context_k, context_v, attn_mask=mask, scale=form.scale
        )
    else:
        sinks = None if form.sinks is None else form.sinks.view(kv_heads, -1, 1)
        attended = _spelled_out(grouped, context_k, context_v, mask, form, sinks)
    return attended.flatten(1, 2)


def prefill(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, span: PrefillSpan, form: Form
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
    form: Form,
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


def _decode_mask(
    longest: int, lengths: torch.Tensor, window: int | None, masks: dict[Any, torch.Tensor]
) -> torch.Tensor:
    """[sequences, 1, 1, longest] True where a context token exists (and is in the window)."""
    if window not in masks:
        place = torch.arange(longest, device=lengths.device)
        mask = place < lengths[:, None]
        if window is not None:
            mask &= place >= lengths[:, None] - window
        masks[window] = mask[:, None, None, :]
    return masks[window]


def _prefill_mask(span: PrefillSpan, window: int | None, device: torch.device) -> torch.Tensor:
    """[n, first + n] causal, from the tokens' true positions."""
    at = torch.arange(span.first, len(span.slots), device=device)[:, None]
    place = torch.arange(len(span.slots), device=device)[None]
    mask = place <= at
    return mask if window is None else mask & (place > at - window)
