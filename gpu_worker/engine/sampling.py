"""Logits → token ids. The random number of a position depends on (seed, position) only.

So any replica that continues a request draws what the first one would have drawn. The number comes
from SplitMix64 (Steele et al., OOPSLA 2014), the token from the inverse distribution function. A
row's result doesn't depend on the other rows of the batch.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import torch

from gpu_worker.engine.logprobs import Logprobs, finite
from gpu_worker.engine.request import Sampling, TokenLogprobs
from kernels.family import Operation
from kernels.transfer import ToHost, to_device

_MASK = (1 << 64) - 1
_GREEDY_BELOW = 1e-5  # colder than this, dividing logits overflows and the largest wins anyway
_USUAL_NUCLEUS = 256  # nearly always enough for top-p, and far cheaper than a full sort
_RUN = 256  # neighbours that the inverse distribution function first takes as one


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one row besides its logits."""

    sampling: Sampling
    position: int  # output index of the token that is chosen now
    tokens: Rows[int]  # prompt + output so far
    prompt_length: int
    allowed: torch.Tensor | None = None  # bool [vocabulary], by a grammar
    ends: tuple[int, ...] = ()  # tokens that would end the generation


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for one position of one request."""
    return (_mix(_mix(seed & _MASK) ^ position) >> 11) / (1 << 53)


class Sampled:
    """One token a row, on the device until it is read."""

    def __init__(self, tokens: torch.Tensor, logits: torch.Tensor, rows: Rows[Row]) -> None:
        """tokens: int64 [rows]; logits: the edited ones."""
        self.tokens = tokens
        self._wanting = [i for i, row in enumerate(rows) if row.sampling.logprobs is not None]
        self._logprobs = None
        if self._wanting:
            at = _ids(self._wanting, logits)
            counts = [rows[i].sampling.logprobs or 0 for i in self._wanting]
            self._logprobs = Logprobs(logits[at], tokens[at], counts)
        self._host = ToHost([tokens])

    def read(self) -> tuple[list[int], list[TokenLogprobs | None]]:
        """Waits until the device has come so far, and no longer."""
        tokens: list[int] = self._host.read()[0].tolist()
        found: list[TokenLogprobs | None] = [None] * len(tokens)
        if self._logprobs is not None:
            for row, logprobs in zip(self._wanting, self._logprobs.read(), strict=True):
                found[row] = logprobs
        return tokens, found


@torch.inference_mode()
def sample(logits: torch.Tensor, rows: Rows[Row], kernel: Operation | None = None) -> Sampled:
    """One token a row, and its log-probability where asked. logits [rows, vocabulary]: edited.

    Log-probabilities are of the distribution after penalties, bias and grammar, before temperature
    and truncation, as vLLM's `processed_logits` has them. `kernel`: `kernels.gpu.sampling`'s.
    """
    logits = finite(logits)
    for index, row in enumerate(rows):
        _edit(logits[index], row)
    random = [i for i, row in enumerate(rows) if row.sampling.temperature >= _GREEDY_BELOW]
    if random and kernel is not None:
        chosen = _draw_by(kernel, logits, rows)
    else:
        chosen = logits.argmax(dim=-1)
        if random:
            chosen[random] = _draw(logits[random], [rows[i] for i in random])
    return Sampled(chosen, logits, rows)


def _edit(logits: torch.Tensor, row: Row) -> None:
    """Penalties, bias and masks of one row, in place."""
    s = row.sampling
    if s.repetition_penalty != 1.0:
        seen = _ids(set(row.tokens), logits)
        values = logits[seen]
        logits[seen] = torch.where(
            values > 0, values / s.repetition_penalty, values * s.repetition_penalty
        )
    if s.presence_penalty or s.frequency_penalty:
        counts = Counter(row.tokens[row.prompt_length :])
        times = to_device(torch.tensor(list(counts.values()), dtype=torch.float32), logits.device)
        logits[_ids(counts, logits)] -= s.presence_penalty + s.frequency_penalty * times
    if s.logit_bias:
        bias = torch.tensor(list(s.logit_bias.values()), dtype=torch.float32)
        logits[_ids(s.logit_bias, logits)] += to_device(bias, logits.device)
    early = row.position < s.min_tokens and len(row.ends) < len(logits)
    if row.allowed is None:
        if early:
            logits[_ids(row.ends, logits)] = float("-inf")
        return
    allowed = row.allowed  # on the host
    if early:
        going_on = allowed.clone()
        going_on[list(row.ends)] = False
        allowed = going_on if going_on.any() else allowed  # the grammar's end comes first
    if allowed.any():
        logits.masked_fill_(to_device(~allowed, logits.device), float("-inf"))


def _ids(ids: Iterable[int], like: torch.Tensor) -> torch.Tensor:
    return to_device(torch.tensor(list(ids), dtype=torch.long), like.device)


def _draw_by(kernel: Operation, logits: torch.Tensor, rows: Rows[Row]) -> torch.Tensor:
    """All rows at once, the greedy ones too."""
    settings = [row.sampling for row in rows]
    cold = [0.0 if s.temperature < _GREEDY_BELOW else s.temperature for s in settings]
    numbers = [uniform(row.sampling.seed, row.position) for row in rows]
    most = logits.shape[-1]
    table = torch.tensor(
        [
            *(cold, numbers, [s.min_p for s in settings], [s.top_p for s in settings]),
            [s.top_k if s.top_k < most else 0 for s in settings],
        ]
    )
    temperatures, targets, min_ps, top_ps, top_ks = to_device(table, logits.device)
    return kernel(logits, temperatures, targets, min_ps, top_ks.int(), top_ps)


def _draw(logits: torch.Tensor, rows: Rows[Row]) -> torch.Tensor:
    """One token a row, all of them random."""
    settings = [row.sampling for row in rows]
    temperature = logits.new_tensor([s.temperature for s in settings])
    probabilities = torch.softmax(logits / temperature[:, None], dim=-1)
    if any(s.min_p for s in settings):
        floor = logits.new_tensor([s.min_p for s in settings]) * probabilities.amax(-1)
        probabilities = torch.where(probabilities >= floor[:, None], probabilities, 0.0)
    targets = torch.tensor(
        [uniform(row.sampling.seed, row.position) for row in rows],
        dtype=torch.float64,
        device=logits.device,
    )
    chosen = _invert(probabilities, targets)
    vocabulary = logits.shape[-1]
    for index, s in enumerate(settings):
        if s.top_p < 1 or 0 < s.top_k < vocabulary:
            # In the vocabulary's order, as without truncation and as the kernel has it.
            kept = _largest(probabilities[index], s).sort().values
            at = _invert(probabilities[index][kept][None], targets[index : index + 1])
            chosen[index] = kept[at[0]]
    return chosen


def _invert(probabilities: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The inverse distribution function at `targets` (shares of the total), row by row.

    First over runs of neighbours, then within one: two short sums instead of one over everything.
    """
    rows, size = probabilities.shape
    runs = torch.nn.functional.pad(probabilities, (0, -size % _RUN)).view(rows, -1, _RUN)
    sums = runs.double().sum(-1)
    cumulative = sums.cumsum(-1)
    wanted = (targets * cumulative[:, -1])[:, None]
    run = torch.searchsorted(cumulative, wanted, right=True).clamp(max=runs.shape[1] - 1)
    before = (cumulative.gather(1, run) - sums.gather(1, run)).clamp(min=0)
    within = runs[torch.arange(rows, device=runs.device), run[:, 0]].double()
    inner = torch.searchsorted(within.cumsum(-1), wanted - before, right=True)
    last = _RUN - 1 - (within > 0).flip(-1).int().argmax(-1, keepdim=True)  # rounding
    return (run * _RUN + torch.minimum(inner, last))[:, 0].clamp(max=size - 1)


def _largest(probabilities: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The token ids of the top-k and then top-p part, largest first."""
    limit = min(sampling.top_k or len(probabilities), len(probabilities))
    count = min(limit, _USUAL_NUCLEUS)
    total = probabilities.sum()
    while True:
        values, order = probabilities.topk(count)
        before = values.cumsum(0) - values  # mass of the larger ones
        kept = before < sampling.top_p * (values.sum() if count == limit else total)
        kept[0] = True
        if count == limit or not kept[-1]:
            return order[kept]
        count = limit
