"""Embeddings: the last layer's hidden states of a prompt, made into one vector of length 1.

`mean` of all of the prompt's tokens, or that of the `last` one, as models do that were trained for
it (https://arxiv.org/abs/2401.00368).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpu_worker.engine.request import InvalidRequest
from gpu_worker.engine.schedule import Chunk


class HiddenStates:
    """Of the latest forward pass, where somebody wants them."""

    def __init__(self, model: torch.nn.Module) -> None:
        base = getattr(model, str(getattr(model, "base_model_prefix", "")), None)
        self._base: torch.nn.Module | None = base if base is not model else None

    def of(self, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What `run` returns, and the hidden states [tokens, width]. Raises InvalidRequest."""
        found: list[torch.Tensor] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output.last_hidden_state)

        if self._base is None:
            raise InvalidRequest("this model has no hidden states to make embeddings of")
        hook = self._base.register_forward_hook(keep)
        try:
            logits = run()
        finally:
            hook.remove()
        return logits, found[-1][0]


def wanted(chunks: Sequence[Chunk]) -> bool:
    return any(chunk.sequence.request.sampling.pooling for chunk in chunks)


def pool(chunks: Sequence[Chunk], hidden: torch.Tensor) -> None:
    """Add the chunks' rows to their sequences. hidden [tokens, width], in the order of the chunks.

    A sequence that was preempted begins again with its first row.
    """
    row = 0
    for chunk in chunks:
        rows = hidden[row : row + chunk.count]
        row += chunk.count
        sequence = chunk.sequence
        kind = sequence.request.sampling.pooling
        if kind is None or sequence.position != 0:
            continue
        if kind == "last":
            sequence.pooled = rows[-1].float()
        else:
            before = sequence.pooled if chunk.start else None
            total = rows.float().sum(0)
            sequence.pooled = total if before is None else before + total


def embedding(pooled: torch.Tensor) -> bytes:
    """Of length 1, float32, little-endian."""
    return torch.nn.functional.normalize(pooled, dim=0).cpu().numpy().astype("<f4").tobytes()
