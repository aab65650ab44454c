"""transformers' AttentionInterface → our paged KV cache.

A step is one packed row of tokens of many sequences. Each attention layer calls `paged_attention`
with the row's queries, keys and values; the step's metadata reaches it through `STEP`, because not
every model passes extra arguments through to its attention.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

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
    decode_slots: torch.Tensor  # [sequences, longest] slots of its context, padded with slot 0
    decode_lengths: torch.Tensor  # [sequences] context length, the new token included
    prefills: list[PrefillSpan]
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)  # by window
    layers_called: int = 0


class KvCache:
    """Keys and values by layer: [slots, kv heads, head size], made when a layer is first met."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(self, index: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The cache of a layer whose rows look like k, v: [tokens, kv heads, head size]."""
        if index not in self.layers:
            self.layers[index] = (
                k.new_zeros(self.slots, *k.shape[1:]),
                v.new_zeros(self.slots, *v.shape[1:]),
            )
        return self.layers[index]

    def bytes_per_token(self) -> int:
        return sum(t[0].numel() * t.element_size() for pair in self.layers.values() for t in pair)


class _Current:
    """The step that is being computed. The engine is single-threaded: one at a time."""

    metadata: StepMetadata | None = None
    cache: KvCache | None = None


STEP = _Current()


def paged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """query [1, heads, tokens, d]; key, value [1, kv heads, tokens, d] → [1, tokens, heads, d]."""
    meta, cache = STEP.metadata, STEP.cache
    if meta is None or cache is None:
        raise RuntimeError("paged attention was called outside an engine step")
    if softcap is not None or kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention with soft-capping or sinks isn't supported yet")
    meta.layers_called += 1
    q, k, v = query[0], key[0].transpose(0, 1), value[0].transpose(0, 1)
    keys, values = cache.layer(module.layer_idx, k, v)  # type: ignore[arg-type]
    keys.index_copy_(0, meta.write_slots, k)
    values.index_copy_(0, meta.write_slots, v)
    heads, kv_heads = q.shape[0], k.shape[1]
    out = q.new_empty(q.shape[1], heads, v.shape[-1])
    if len(meta.decode_rows):
        # The heads that share a kv head become its queries: no key or value is repeated.
        grouped = q[:, meta.decode_rows].transpose(0, 1).unflatten(1, (kv_heads, heads // kv_heads))
        decoded = F.scaled_dot_product_attention(
            grouped,
            keys[meta.decode_slots].transpose(1, 2),
            values[meta.decode_slots].transpose(1, 2),
            attn_mask=_decode_mask(meta, sliding_window),
            scale=scaling,
        )
        out[meta.decode_rows] = decoded.flatten(1, 2)
    for span in meta.prefills:
        attended = F.scaled_dot_product_attention(
            q[None, :, span.start : span.end],
            keys[span.slots].transpose(0, 1)[None],
            values[span.slots].transpose(0, 1)[None],
            attn_mask=_prefill_mask(span, sliding_window, q.device),
            scale=scaling,
            enable_gqa=heads != kv_heads,
        )
        out[span.start : span.end] = attended[0].transpose(0, 1)
    return out[None], None


def _decode_mask(meta: StepMetadata, window: int | None) -> torch.Tensor:
    """[sequences, 1, 1, longest] True where a context token exists (and is in the window)."""
    if window not in meta.masks:
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
