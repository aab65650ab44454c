"""Is this model computed correctly by the packed, paged forward? Asked once, at load.

Some models bypass the attention interface, and masks that a model builds itself vanish in a packed
row: both silently. So two random sequences run packed, split into prefill and decode, and the
logits must equal transformers' own eager attention, one sequence at a time. A model that fails is
refused.
"""

import torch

from gpu_worker.engine.attention import NAME, STEP
from gpu_worker.engine.forward import Forward
from gpu_worker.engine.request import ModelRefused, Request, Sampling
from gpu_worker.engine.schedule import Chunk, Sequence

_LENGTHS = (37, 21)
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def probe(forward: Forward, vocabulary: int) -> None:
    """Raises ModelRefused. Leaves the cache filled with rubbish: make a new one afterwards."""
    generator = torch.Generator().manual_seed(0)
    sequences = []
    for index, length in enumerate(_LENGTHS):
        tokens = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        request = Request(str(index), tokens, Sampling(1))
        first = 1 + index * 4  # four blocks each, enough for 64 tokens
        sequences.append(Sequence(request, list(tokens), blocks=list(range(first, first + 4))))
    try:
        ours = _packed(forward, sequences)
    except NotImplementedError as unsupported:
        raise ModelRefused(str(unsupported)) from unsupported
    theirs = _eager(forward, sequences)
    tolerance = _TOLERANCE[ours.dtype] * float(theirs.abs().max())
    worst = float((ours - theirs).abs().max())
    if not worst <= tolerance:
        raise ModelRefused(
            f"{forward.model.config.model_type}: packed paged attention differs from eager "  # type: ignore[union-attr]
            f"attention by {worst:.3g} (allowed {tolerance:.3g})"
        )


def _packed(forward: Forward, sequences: list[Sequence]) -> torch.Tensor:
    """Logits of the last token, reached by a packed prefill, a further chunk, and a decode."""
    logits = torch.empty(0)
    ends = [(0.5, 0), (1.0, 1), (1.0, 0)]
    for share, held_back in ends:
        chunks = []
        for s in sequences:
            end = int(len(s.tokens) * share) - held_back
            chunks.append(Chunk(s, s.computed, end - s.computed))
        logits = forward(chunks, _no_adapter)
        for s, chunk in zip(sequences, chunks, strict=True):
            s.computed = chunk.start + chunk.count
    _check_layers(forward)
    return logits.float() if logits.dtype == torch.float64 else logits


def _check_layers(forward: Forward) -> None:
    layers = forward.model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
    if len(forward.cache.layers) != layers:
        raise ModelRefused(
            f"{forward.model.config.model_type}: {len(forward.cache.layers)} of {layers} layers "  # type: ignore[union-attr]
            "use transformers' attention interface; the others would ignore the KV cache"
        )


@torch.inference_mode()
def _eager(forward: Forward, sequences: list[Sequence]) -> torch.Tensor:
    model = forward.model
    assert STEP.metadata is None
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        return torch.stack(
            [
                model(torch.tensor([s.tokens], device=forward.device), use_cache=False).logits[
                    0, -1
                ]
                for s in sequences
            ]
        )
    finally:
        model.set_attn_implementation(NAME)  # type: ignore[operator]


def _no_adapter(name: str) -> object:
    raise AssertionError(f"the probe runs without adapters, asked for {name!r}")
