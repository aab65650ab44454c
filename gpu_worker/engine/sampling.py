"""Logits → token ids. The random number of a position depends on (seed, position) only.

So any replica that continues a request draws what the first one would have drawn. The number comes
from SplitMix64 (Steele et al., OOPSLA 2014), the token from the inverse distribution function.
"""

from collections.abc import Sequence as Rows

import torch

from gpu_worker.engine.request import Sampling

_MASK = (1 << 64) - 1
_GREEDY_BELOW = 1e-5  # colder than this, dividing logits overflows and the largest wins anyway


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for one position of one request."""
    return (_mix(_mix(seed & _MASK) ^ position) >> 11) / (1 << 53)


def sample(logits: torch.Tensor, rows: Rows[tuple[Sampling, int]]) -> list[int]:
    """One token a row. logits [rows, vocabulary]; `rows` gives the sampling and the position."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for index, (sampling, position) in enumerate(rows):
        if sampling.temperature >= _GREEDY_BELOW:
            tokens[index] = _draw(logits[index], sampling, position)
    return tokens


def _draw(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    order: torch.Tensor | None = None
    if sampling.top_p < 1 or 0 < sampling.top_k < len(logits):
        probabilities, order = _largest(probabilities, sampling)
    if sampling.min_p > 0:
        floor = sampling.min_p * probabilities.max()
        probabilities = torch.where(probabilities >= floor, probabilities, 0.0)
    cumulative = probabilities.double().cumsum(0)
    target = uniform(sampling.seed, position) * cumulative[-1]
    choice = torch.searchsorted(cumulative, target, right=True).clamp(max=len(cumulative) - 1)
    return int(choice if order is None else order[choice])


def _largest(probabilities: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """The top-k and then top-p part, largest first, with its token ids."""
    limit = min(sampling.top_k or len(probabilities), len(probabilities))
    count = min(limit, 512)  # nearly always enough for top-p, and far cheaper than a full sort
    while True:
        values, order = probabilities.topk(count)
        before = values.cumsum(0) - values  # mass of the larger ones
        total = values.sum() if count == limit else 1.0
        kept = before < sampling.top_p * total
        if count == limit or not kept[-1]:
            return values[kept], order[kept]
        count = limit
