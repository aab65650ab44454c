"""How the versions of a repo do, by their usage records. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

_FAILED = ("error", "expired")


class Record(Protocol):
    adapter: str
    prompt_tokens: int
    completion_tokens: int
    queue_s: float
    first_token_s: float | None
    duration_s: float
    status: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of answers that ended well; `tokens_per_s`: of an answer, from its first token on."""

    version: str
    answers: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    duration_p50_s: float | None
    tokens_per_s_p50: float | None


def figures(records: Iterable[Record]) -> list[Figures]:
    """By version, in the order of their names."""
    of: dict[str, list[Record]] = {}
    for record in records:
        of.setdefault(record.adapter, []).append(record)
    return [_figures(name, of[name]) for name in sorted(of, key=_number)]


def _figures(version: str, records: Sequence[Record]) -> Figures:
    well = [each for each in records if each.status not in (*_FAILED, "cancelled")]
    firsts = sorted(r.first_token_s for r in well if r.first_token_s is not None)
    speeds = sorted(
        (r.completion_tokens - 1) / (r.duration_s - r.first_token_s)
        for r in well
        if r.first_token_s is not None and r.duration_s > r.first_token_s
    )
    return Figures(
        version=version,
        answers=len(records),
        failed=sum(each.status in _FAILED for each in records),
        prompt_tokens=sum(each.prompt_tokens for each in records),
        completion_tokens=sum(each.completion_tokens for each in records),
        first_token_p50_s=_at(firsts, 0.5),
        first_token_p95_s=_at(firsts, 0.95),
        duration_p50_s=_at(sorted(each.duration_s for each in well), 0.5),
        tokens_per_s_p50=_at(speeds, 0.5),
    )


def _at(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)


def _number(name: str) -> tuple[int, str]:
    version = name.rpartition("/")[2].partition("@")[0]
    return (int(version) if version.isdecimal() else 0, name)
