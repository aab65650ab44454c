"""Is this model computed correctly by the packed, paged forward? Asked once, at load.

Some models bypass the attention interface, and masks that a model builds itself vanish in a packed
row: both silently. So two random sequences run packed, split into chunks and a decode step, and the
logits must equal those of transformers' own eager attention, one sequence at a time, before any
layer was replaced. Windows longer than the sequences can't show there: the layers that have one by
the config must have passed it on. A model that fails is refused; it is never served wrong.
"""

from typing import Any

import torch

from gpu_worker.engine.attention import NAME, STEP
from gpu_worker.engine.forward import Forward
from gpu_worker.engine.request import ModelRefused, Request, Sampling
from gpu_worker.engine.schedule import Chunk, Sequence

PROBE_BLOCKS = 9  # four for each sequence, and the one for padding
_LENGTHS = (37, 21)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def sequences(vocabulary: int) -> list[Sequence]:
    """Random tokens, with blocks of a pool of PROBE_BLOCKS."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for index, length in enumerate(_LENGTHS):
        tokens = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        request = Request(str(index), tokens, Sampling(1))
        first = 1 + index * 4
        made.append(Sequence(request, list(tokens), blocks=list(range(first, first + 4))))
    return made


@torch.inference_mode()
def eager_logits(model: torch.nn.Module, vocabulary: int, device: torch.device) -> torch.Tensor:
    """[2, sequences, vocabulary]: of the last token but one, and of the last one."""
    _refuse_by_config(model)
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        rows = []
        for sequence in sequences(vocabulary):
            ids = torch.tensor([sequence.tokens], device=device)
            rows.append(model(ids, use_cache=False).logits[0, -2:])
        return torch.stack(rows, dim=1)
    except Exception as failed:
        raise ModelRefused(f"{_kind(model)}: {type(failed).__name__}: {failed}") from failed
    finally:
        model.set_attn_implementation(NAME)  # type: ignore[operator]


def probe(forward: Forward, vocabulary: int, expected: torch.Tensor, stored: torch.dtype) -> None:
    """Raises ModelRefused. Leaves the cache filled with rubbish: make a new one afterwards.

    `stored`: the least exact dtype that the KV cache or the arithmetic has.
    """
    try:
        ours = _packed(forward, vocabulary)
    except ModelRefused:
        raise
    except Exception as failed:
        raise ModelRefused(f"{_kind(forward.model)}: {failed}") from failed
    tolerance = _TOLERANCE[stored] * float(expected.abs().max())
    worst = float((ours - expected).abs().max())
    if not worst <= tolerance:
        raise ModelRefused(
            f"{_kind(forward.model)}: packed paged attention differs from eager attention by "
            f"{worst:.3g} (allowed {tolerance:.3g})"
        )


def _packed(forward: Forward, vocabulary: int) -> torch.Tensor:
    """The same logits, reached by a packed prefill, a further chunk, and a decode."""
    made = sequences(vocabulary)
    logits = []
    for share, held_back in ((0.5, 0), (1.0, 1), (1.0, 0)):
        chunks = []
        for s in made:
            end = int(len(s.tokens) * share) - held_back
            chunks.append(Chunk(s, s.computed, end - s.computed))
        logits.append(forward(chunks, every_chunk=True))
        if share == 0.5:
            _check_layers(forward)
        for s, chunk in zip(made, chunks, strict=True):
            s.computed = chunk.start + chunk.count
    assert STEP.metadata is None
    return torch.stack(logits[1:])


def _check_layers(forward: Forward) -> None:
    config: Any = forward.model.config.get_text_config()  # type: ignore[union-attr, operator]
    layers = config.num_hidden_layers
    calls = forward.windows_seen
    if len(calls) != layers:
        raise ModelRefused(
            f"{_kind(forward.model)}: {len(calls)} of {layers} layers use transformers' attention "
            "interface; the others would ignore the KV cache"
        )
    kinds = getattr(config, "layer_types", None) or []
    for index, kind in enumerate(kinds):
        if kind == "sliding_attention" and calls.get(index) is None:
            raise ModelRefused(
                f"{_kind(forward.model)}: layer {index} has a sliding window that it doesn't pass "
                "to its attention"
            )


def _refuse_by_config(model: torch.nn.Module) -> None:
    config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
    for kind in getattr(config, "layer_types", None) or []:
        if kind not in ("full_attention", "sliding_attention"):
            raise ModelRefused(f"{_kind(model)}: layers of type {kind!r} aren't supported")


def _kind(model: torch.nn.Module) -> str:
    return str(model.config.model_type)  # type: ignore[union-attr]
