"""What a request must be. Whatever would fail in the middle of a batch is refused before it."""

import math

from gpu_worker.engine.request import Grammar, InvalidRequest, Request, Sampling

MOST_LOGPROBS = 1024
_INTEGERS: dict[str, tuple[int, int]] = {
    "max_tokens": (1, 2**62),
    "seed": (-(2**64), 2**64),
    "top_k": (0, 2**31),
    "min_tokens": (0, 2**62),
}
_NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
    "presence_penalty": (-100, 100),
    "frequency_penalty": (-100, 100),
}


def check_request(request: Request, vocabulary: int) -> None:
    """Raises InvalidRequest, naming the field."""
    for name in ("id", "tenant"):
        _need(isinstance(getattr(request, name), str), name, "a string")
    _need(isinstance(request.adapter, str | None), "adapter", "a string or None")
    for name in ("prompt", "produced"):
        _need(isinstance(getattr(request, name), list), name, "a list of token ids")
    _need(isinstance(request.sampling, Sampling), "sampling", "a Sampling")
    _check_sampling(request.sampling)
    s = request.sampling
    for name, ids in (
        *(("prompt", request.prompt), ("produced", request.produced)),
        *(("logit_bias", list(s.logit_bias)), ("stop_ids", list(s.stop_ids))),
    ):
        known = all(type(token) is int and 0 <= token < vocabulary for token in ids)
        _need(known, name, f"of token ids from 0 to {vocabulary - 1}")


def _check_sampling(s: Sampling) -> None:
    for name, (low, high) in _INTEGERS.items():
        value = getattr(s, name)
        whole = type(value) is int and low <= value <= high
        _need(whole, name, f"an integer from {low} to {high}")
    for name, (least, most) in _NUMBERS.items():
        _number(name, getattr(s, name), least, most)
    for name in ("logprobs", "prompt_logprobs"):
        asked = getattr(s, name)
        few = asked is None or (type(asked) is int and 0 <= asked <= MOST_LOGPROBS)
        _need(few, name, f"None or an integer from 0 to {MOST_LOGPROBS}")
    _need(isinstance(s.stop_ids, tuple | list), "stop_ids", "a tuple of token ids")
    _need(hasattr(s.logit_bias, "items"), "logit_bias", "a mapping of token ids to numbers")
    for token, bias in s.logit_bias.items():
        _number(f"logit_bias[{token}]", bias, -1e6, 1e6)
    _need(isinstance(s.grammar, Grammar | None), "grammar", "a Grammar or None")


def _number(name: str, value: object, low: float, high: float) -> None:
    fits = isinstance(value, int | float) and not math.isnan(value) and low <= value <= high
    _need(fits, name, f"a number from {low} to {high}")


def _need(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise InvalidRequest(f"{name} must be {what}")
