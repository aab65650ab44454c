"""Counters and histograms of answers, as they are kept in `entities.Totals`. Pure.

Kept as plain JSON: `{"ended": {status: n}, "errors": {code: n}, "histograms": {name: {"counts":
[…], "sum": x}}}`; a histogram counts what is within each bound, and what is beyond the last.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SECONDS = tuple(0.001 * 2**i for i in range(21))  # 1 ms to 17 min
TOKENS = tuple(float(2**i) for i in range(18))  # 1 to 131,072

BOUNDS = {
    "duration_s": SECONDS,
    "queue_s": SECONDS,
    "inference_s": SECONDS,
    "first_token_s": SECONDS,
    "per_token_s": SECONDS,
    "prompt_tokens": TOKENS,
    "completion_tokens": TOKENS,
}


@dataclass(slots=True)
class Answer:
    """What is counted of one answer. Seconds since the request came; None: there was no token."""

    status: str
    error: str
    queue_s: float
    first_token_s: float | None
    duration_s: float
    prompt_tokens: int
    completion_tokens: int

    def values(self) -> dict[str, float]:
        found = {
            "duration_s": self.duration_s,
            "queue_s": self.queue_s,
            "inference_s": max(0.0, self.duration_s - self.queue_s),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        if self.first_token_s is not None:
            found["first_token_s"] = self.first_token_s
        if self.completion_tokens:
            found["per_token_s"] = found["inference_s"] / self.completion_tokens
        return found


@dataclass(slots=True)
class Histogram:
    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class Counted:
    ended: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {n: Histogram(b, [0] * (len(b) + 1)) for n, b in BOUNDS.items()}
    )

    def add(self, answer: Answer) -> None:
        self.ended[answer.status] = self.ended.get(answer.status, 0) + 1
        if answer.status == "error":
            code = answer.error or "error"
            self.errors[code] = self.errors.get(code, 0) + 1
        for name, value in answer.values().items():
            self.histograms[name].add(value)

    def to_json(self) -> dict[str, Any]:
        kept = {n: {"counts": h.counts, "sum": h.total} for n, h in self.histograms.items()}
        return {"ended": self.ended, "errors": self.errors, "histograms": kept}


def from_json(*kept: dict[str, Any]) -> Counted:
    """The sum of what was kept. What has other bounds, of another release, isn't in it."""
    found = Counted()
    for each in kept:
        for name in ("ended", "errors"):
            into = getattr(found, name)
            for key, count in each.get(name, {}).items():
                into[key] = into.get(key, 0) + count
        for name, histogram in each.get("histograms", {}).items():
            into_histogram = found.histograms.get(name)
            counts = histogram["counts"]
            if into_histogram is not None and len(counts) == len(into_histogram.counts):
                pairs = zip(into_histogram.counts, counts, strict=True)
                into_histogram.counts = [a + b for a, b in pairs]
                into_histogram.total += histogram["sum"]
    return found


def count(kept: dict[str, Any] | None, answers: Iterable[Answer]) -> dict[str, Any]:
    """What is to be kept when these have come."""
    found = from_json(kept) if kept else Counted()
    for answer in answers:
        found.add(answer)
    return found.to_json()
