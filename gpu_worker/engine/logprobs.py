"""Log-probabilities of sampled and of prompt tokens, on the device until they are read."""

from collections.abc import Sequence as Rows

import torch

from gpu_worker.engine.request import TokenLogprobs
from gpu_worker.engine.schedule import Chunk, Sequence
from kernels.transfer import ToHost, to_device

_LOWEST = -1e9  # of a logit; finite, so that there is always a likeliest token
_LEAST = -9999.0  # of a log-probability, as OpenAI's API has it: JSON knows no infinity
_ROWS = 128  # at a time: a prompt's logits are large, a second copy of them larger


def finite(logits: torch.Tensor) -> torch.Tensor:
    """In float32, without what an adapter with absurd weights may give."""
    return logits.float().nan_to_num_(nan=_LOWEST, posinf=-_LOWEST, neginf=_LOWEST)


class Logprobs:
    """Of one token a row, and of the row's likeliest ones."""

    @torch.inference_mode()
    def __init__(self, logits: torch.Tensor, tokens: torch.Tensor, counts: Rows[int]) -> None:
        """logits [rows, vocabulary]; tokens [rows]; counts: alternatives, by row."""
        self._counts = [min(count, logits.shape[-1]) for count in counts]
        most = max(self._counts)
        parts = [
            _of(finite(rows), of, most)
            for rows, of in zip(logits.split(_ROWS), tokens.split(_ROWS), strict=True)
        ]
        self._host = ToHost([torch.cat(part) for part in zip(*parts, strict=True)])

    def read(self) -> list[TokenLogprobs]:
        chosen, values, ids = (t.tolist() for t in self._host.read())
        return [
            TokenLogprobs(
                chosen[row], list(zip(ids[row][:count], values[row][:count], strict=True))
            )
            for row, count in enumerate(self._counts)
        ]


def _of(logits: torch.Tensor, tokens: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
    """The tokens' log-probabilities [rows], and the likeliest ones' values and ids [rows, most]."""
    logprobs = torch.log_softmax(logits, dim=-1)  # unlike logsumexp a row doesn't see the others
    best = logprobs.topk(most)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    return chosen.clamp(min=_LEAST), best.values.clamp(min=_LEAST), best.indices


class PromptLogprobs:
    """Of the prompts' tokens that one step has scored, as the model gives them: no penalty, bias or
    temperature."""

    def __init__(self, chunks: Rows[Chunk], logits: torch.Tensor) -> None:
        """logits [rows that score, vocabulary], in the order of the chunks."""
        self._parts: list[tuple[Sequence, int, int]] = []  # whose, first row there, rows
        tokens: list[int] = []
        counts: list[int] = []
        for chunk in chunks:
            scored = chunk.scored
            if scored:
                self._parts.append((chunk.sequence, chunk.start, len(scored)))
                tokens += scored
                counts += [chunk.sequence.request.sampling.prompt_logprobs or 0] * len(scored)
        targets = to_device(torch.tensor(tokens, dtype=torch.long), logits.device)
        self._logprobs = Logprobs(logits, targets, counts)

    def give(self) -> None:
        """To their sequences. One that was preempted meanwhile will have them again."""
        found = self._logprobs.read()
        for sequence, start, count in self._parts:
            sequence.prompt_logprobs[start : start + count] = found[:count]
            del found[:count]
