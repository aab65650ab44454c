"""Paged decode attention and the store of keys and values, on the CPU."""

import torch

from kernels.cpu.linear import kind_of
from kernels.cpu.program import call
from kernels.layout import heads_together


def store_kv(
    k: torch.Tensor, v: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Rows k [tokens, kv heads, d], v [tokens, kv heads, dv] → their slots of the cache.

    keys, values: [slots, kv heads, d], float32 or bfloat16; slots: int64 [tokens].
    """
    k, v = heads_together(k), heads_together(v)
    call(
        "lpx_store_kv",
        *(k.data_ptr(), v.data_ptr(), keys.data_ptr(), values.data_ptr(), slots.data_ptr()),
        *(len(slots), keys[0].numel(), values[0].numel(), k.stride(0), v.stride(0)),
        kind_of(keys.dtype),
    )


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
    """One new token a sequence. q [sequences, heads, d] → [sequences, heads, dv], float32.

    tables: int32 [sequences, blocks], block numbers; lengths: int64 [sequences], the new token
    counted; window 0: all of the context; sinks: float32 [heads] (gpt-oss), softcap 0: none.
    """
    q = heads_together(q)
    sequences, heads, d = q.shape
    out = q.new_empty(sequences, heads, values.shape[2])
    failed = call(
        "lpx_decode",
        *(q.data_ptr(), keys.data_ptr(), values.data_ptr(), out.data_ptr()),
        *(tables.data_ptr(), lengths.data_ptr(), sequences, q.stride(0), tables.shape[1]),
        *(heads, keys.shape[1], d, values.shape[2], block, scale, softcap, window),
        *(None if sinks is None else sinks.data_ptr(), kind_of(keys.dtype)),
    )
    if failed:
        raise MemoryError("decode attention has no memory for its scores")
    return out
