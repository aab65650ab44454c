"""What the scaler remembers of a deployment between looks, and what it expects of a start. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loraplex.keys import Lane

MOST_FAILED_STARTS = 3
_FIRST_BACK_OFF_S, _LONGEST_BACK_OFF_S = 5.0, 300.0
_STARTS = 16  # cold starts that are remembered


NEVER_ASKED = (0, 0.0, 0)


class Counted(NamedTuple):
    """Requests that have come: of the lane in use, and with those of lanes before."""

    lane: str = ""
    offset: int = 0
    total: int = 0


NOTHING = Counted()


@dataclass(frozen=True, slots=True)
class Remembered:
    """Lost with the leader but for what `memory.Kept` keeps in Redis."""

    law: Any = None
    starts: tuple[float, ...] = ()  # seconds that the latest ones took, asked for → ready
    used_at: float = 0.0  # when it last had work
    busy: tuple[int, float] = (0, 0.0)  # replicas that had work lately, and when
    first_tokens: tuple[float, ...] = ()  # seconds from ready to the first token, of the latest
    split_told: frozenset[str] = frozenset()  # living replicas whose cold start was noted
    silent_since: Mapping[str, float] = field(default_factory=dict)  # replicas without a lease
    prepare_asked: tuple[int, float, int] = NEVER_ASKED  # revision, when, how often
    counted: Counted = NOTHING
    failed_stragglers: Mapping[Lane, int] = field(default_factory=dict)  # starts for former lanes
    surge_since: float | None = None  # a rollout needs more places than usual
    told: tuple[int, int, bool] = (-1, -1, False)  # last noted: wanted, had, lacked places


def with_start(known: tuple[float, ...], seconds: float) -> tuple[float, ...]:
    return (*known, seconds)[-_STARTS:]


def expected_start_s(known: Remembered, default_s: float) -> float:
    """From asking for a replica to its first token: the upper quartile of the latest ones, because
    a start that is slower than told hurts more."""
    if not known.starts:
        return default_s
    return _upper(known.starts) + (_upper(known.first_tokens) if known.first_tokens else 0.0)


def _upper(values: tuple[float, ...]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, (3 * len(ordered)) // 4)]


def back_off_s(failed_starts: int) -> float:
    """Pause after so many failed starts in a row: 5, 10, 20 … 300 s."""
    return float(min(_FIRST_BACK_OFF_S * 2 ** (failed_starts - 1), _LONGEST_BACK_OFF_S))
