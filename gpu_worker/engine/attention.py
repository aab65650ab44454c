"""transformers' AttentionInterface → our paged KV cache.

A step is one packed row of tokens of many sequences. Each attention layer calls `paged_attention`
with the row's queries, keys and values; the step's metadata reaches it through `STEP`, because not
every model passes extra arguments through to its attention. Window, soft cap, sinks and scale come
with each call: they differ by layer. What the machine has no kernel for, torch computes.
"""

import math
import mmap
import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from gpu_worker.engine.blocks import BLOCK
from gpu_worker.engine.request import ModelRefused
from gpu_worker.engine.torch_attention import Form, PrefillSpan, decode, prefill
from kernels.family import KernelFamily

NAME = "loraplex_paged"


@dataclass(slots=True)
class StepMetadata:
    """Where the row's tokens are written and what each may read."""

    write_slots: torch.Tensor  # [tokens] slot of each row's key and value
    decode_rows: torch.Tensor  # [sequences] rows that are one new token of a sequence
    decode_tables: torch.Tensor  # int32 [sequences, most blocks], block numbers, padded with 0
    decode_lengths: torch.Tensor  # [sequences] context length, the new token included
    only_decode: bool = True  # decode_rows are all rows, in order
    prefills: list[PrefillSpan] = field(default_factory=list)  # for torch
    prefill_tables: torch.Tensor | None = None  # for a kernel: like decode_tables, and
    prefill_tiles: torch.Tensor | None = None  # int32 [tiles, 4] as it wants them
    masks: dict[Any, torch.Tensor] = field(default_factory=dict)  # what torch needs, made once
    windows: dict[int, int | None] = field(default_factory=dict)  # by layer that was called


# Of a token's key and value, [kv heads, head size], by layer.
Shapes = dict[int, tuple[tuple[int, ...], tuple[int, ...]]]


class KvCache:
    """Keys and values by layer: [slots, kv heads, head size], made when a layer is first met, or
    at once where the layers are known; and the kernels that read and write them."""

    def __init__(
        self,
        slots: int,
        dtype: torch.dtype,
        kernels: KernelFamily | None,
        device: torch.device,
        layers: Shapes | None = None,
    ) -> None:
        self.slots = slots
        self.dtype = dtype
        self.kernels = kernels
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._device = device
        for index, (k, v) in (layers or {}).items():
            self.layers[index] = (self._zeros(k), self._zeros(v))

    def layer(
        self, index: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The cache of a layer whose rows look like k, v: [tokens, kv heads, head size]."""
        if index not in self.layers:
            self.layers[index] = (self._zeros(k.shape[1:]), self._zeros(v.shape[1:]))
        return self.layers[index]

    def _zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        """[slots, *shape]. On a CPU its pages become real when they are first written: filling
        them at once would take a cold start half a second for each GiB."""
        if self._device.type != "cpu":
            return torch.zeros(self.slots, *shape, dtype=self.dtype, device=self._device)
        count = self.slots * math.prod(shape)
        size = count * self.dtype.itemsize
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(pages, dtype=self.dtype, count=count).view(self.slots, *shape)

    @property
    def shapes(self) -> Shapes:
        return {i: (tuple(k.shape[1:]), tuple(v.shape[1:])) for i, (k, v) in self.layers.items()}


def bytes_per_token(shapes: Shapes, dtype: torch.dtype) -> int:
    return sum(math.prod(s) for pair in shapes.values() for s in pair) * dtype.itemsize


class _Current(threading.local):
    """The step that this thread computes. An engine has one thread, a process may have several."""

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
    form = Form(
        q.shape[-1] ** -0.5 if scaling is None else float(scaling),
        sliding_window,
        softcap,
        None if s_aux is None else s_aux.detach().float(),
    )
    if cache.kernels is not None:
        cache.kernels.store_kv(k, v, keys, values, meta.write_slots)
    else:
        keys.index_copy_(0, meta.write_slots, k.to(keys.dtype))
        values.index_copy_(0, meta.write_slots, v.to(values.dtype))
    if meta.only_decode:
        return _decode(q, keys, values, meta, form, cache.kernels)[None], None
    out = q.new_empty(*q.shape[:2], v.shape[-1])
    if len(meta.decode_rows):
        rows = q[meta.decode_rows]
        out[meta.decode_rows] = _decode(rows, keys, values, meta, form, cache.kernels)
    if meta.prefill_tiles is not None:
        assert cache.kernels is not None and cache.kernels.prefill_attention is not None
        tables, tiles = meta.prefill_tables, meta.prefill_tiles
        cache.kernels.prefill_attention(
            *(q, keys, values, tables, tiles, out), block=BLOCK, **form.for_kernels()
        )
    for span in meta.prefills:
        rows = q[span.start : span.end]
        out[span.start : span.end] = prefill(rows, keys, values, span, form)
    return out[None], None


def _decode(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    meta: StepMetadata,
    form: Form,
    kernels: KernelFamily | None,
) -> torch.Tensor:
    """One token a sequence: q [sequences, heads, d] → [sequences, heads, dv]."""
    tables, lengths = meta.decode_tables, meta.decode_lengths
    if kernels is None:
        return decode(q, keys, values, tables, lengths, form, meta.masks)
    return kernels.decode_attention(
        *(q, keys, values, tables, lengths), block=BLOCK, **form.for_kernels()
    )


AttentionInterface.register(NAME, paged_attention)
