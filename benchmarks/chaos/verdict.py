"""What a client received, against what an undisturbed run gave."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

FAULTS_OF_DELIVERY = ("lost", "duplicated", "reordered", "wrong_text", "stuck", "leaked")
FAULTS_OF_BOOKS = ("unrecorded", "recorded_twice")


@dataclass
class Verdict:
    """Sums over all requests. `notes` say what was seen where something was wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    manners: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)  # what clients had to cope with
    notes: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)  # heard of by clients → their answers

    def heard(self, chat: str, answers: int) -> None:
        """`chat`: the `id` of an answer."""
        self.requests[chat.rpartition("-")[2]] = answers

    def blame(self, kind: str, note: str, count: int = 1) -> None:
        self.counts[kind] += count
        self.notes.append(f"{kind}: {note}")

    def compare(self, what: str, got: list[str], expected: list[str]) -> None:
        """Texts of a request's answers."""
        if got != expected:
            self.blame("wrong_text", f"{what}: {got!r} instead of {expected!r}")


class Received:
    """A stream as its client puts it together, over several connections."""

    def __init__(self, answers: int) -> None:
        self.texts = [""] * answers
        self.finishes: list[str | None] = [None] * answers
        self.positions = [0] * answers
        self.usage: int | None = None
        self.last_id = ""
        self.done = False

    def add(self, chunk: dict[str, Any], id_: str, verdict: Verdict) -> None:
        """One event, with `logprobs` asked for: they tell how many tokens it brings."""
        verdict.heard(chunk["id"], len(self.texts))
        positions = [int(each) for each in id_.rpartition(":")[2].split(".")]
        for choice in chunk["choices"]:
            index = choice["index"]
            known = (choice["logprobs"] or {}).get("content") or []
            ends = choice["finish_reason"] is not None
            before = positions[index] - len(known) - ends
            self._place(f"{id_} answer {index}", index, before, positions[index], verdict)
            self.texts[index] += choice["delta"].get("content") or ""
            if ends:
                self.finishes[index] = choice["finish_reason"]
        if chunk.get("usage"):
            self.usage = chunk["usage"]["completion_tokens"]
        self.last_id = id_

    def _place(self, what: str, index: int, before: int, after: int, verdict: Verdict) -> None:
        have = self.positions[index]
        if after < have:
            verdict.blame("reordered", f"{what}: {after} after {have}")
        elif before > have:
            verdict.blame("lost", f"{what}: {have}..{before}", before - have)
        elif before < have and after > before:
            verdict.blame("duplicated", f"{what}: {before}..{have}", have - before)
        self.positions[index] = max(have, after)
