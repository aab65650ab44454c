"""What charts are made of: sums over short times, kept as JSON, and series of them. Pure.

A point of answers: `{"requests": n, "failed": n, …, "queue_s": {"n": n, "sum": s, "counts":
{bucket: n}}}`, buckets as in `totals.SECONDS`. A point of load: sums over time (`"ready": 4.0` in
5 s is 0.8 replicas on average), and sums of what was counted; for how many seconds somebody
looked (`"s"`) is in a point of no deployment.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loraplex.totals import SECONDS, Answer

FINE_S, COARSE_S = 5, 60
KEPT_S = {FINE_S: 25 * 3600, COARSE_S: 8 * 86400}
RANGES_S = {"15m": 900, "1h": 3600, "6h": 6 * 3600, "24h": 86400, "7d": 7 * 86400}
LOOKED = ""  # the deployment of points that say that somebody looked

Figures = dict[str, Any]
Column = list[float | None]

_WAITS = ("queue_s", "inference_s", "first_token_s")
_FAILED = ("error", "expired")


def step_for(range_s: int) -> int:
    return FINE_S if range_s <= KEPT_S[FINE_S] else COARSE_S


def begin(at: float, step_s: int) -> int:
    """Of the point that `at` belongs to."""
    return int(at) // step_s * step_s


def of_answer(answer: Answer, *, first: bool) -> Figures:
    """`first`: of its request."""
    values = answer.values()
    return {
        "requests": int(first),
        "answers": 1,
        "failed": int(answer.status in _FAILED),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        **{name: _one(values[name]) for name in _WAITS if name in values},
    }


def _one(value: float) -> Figures:
    return {"n": 1, "sum": value, "counts": {str(bisect_left(SECONDS, value)): 1}}


def add(into: Figures, figures: Mapping[str, Any]) -> Figures:
    """In place: numbers are added, what is below names likewise."""
    for name, value in figures.items():
        if isinstance(value, dict):
            add(into.setdefault(name, {}), value)
        else:
            into[name] = into.get(name, 0) + value
    return into


def columns(
    since: int,
    until: int,
    step_s: int,
    points: Iterable[tuple[int, Mapping[str, Any]]],
    looked: Mapping[int, float],
) -> dict[str, Column]:
    """One value for each `step_s` from `since` on, before `until`, in each column. `points`: begin
    and figures, of both kinds; `looked`: for how many seconds of each somebody looked. None: nobody
    knows."""
    times = range(begin(since, step_s), until, step_s)
    at: dict[int, Figures] = {each: {} for each in looked}
    for time, figures in points:
        at.setdefault(time, {}).update(figures)  # the kinds have no names in common
    rows = [
        None if time not in at else values(at[time], step_s, looked.get(time)) for time in times
    ]
    found: dict[str, Column] = {"time": [float(time) for time in times]}
    for name in _NAMES:
        found[name] = [None if row is None else row[name] for row in rows]
    return found


def values(sums: Mapping[str, Any], step_s: int, looked_s: float | None) -> dict[str, float | None]:
    """Of one point: rates and averages. `looked_s` None: what replicas do is not known."""
    served_s = sums.get("served_s", 0.0)
    found: dict[str, float | None] = {
        "requests_per_s": sums.get("requests", 0) / step_s,
        "failed_per_s": sums.get("failed", 0) / step_s,
    }
    for shown, name in (("tokens_per_s", "generated"), ("prompt_tokens_per_s", "prompt")):
        found[shown] = sums.get(name, 0) / step_s if looked_s else None
    for name in ("ready", "starting", "draining", "waiting", "running"):
        found[name] = sums.get(name, 0.0) / looked_s if looked_s else None
    found["cost_per_h"] = sums.get("cost", 0.0) / looked_s * 3600 if looked_s else None
    for name in ("utilization", "kv_used"):  # of the replicas, while there were any
        found[name] = sums.get(name, 0.0) / served_s if served_s else None
    found["on_gpu"] = float(sums.get("gpu_s", 0.0) > 0) if served_s else None
    for name in _WAITS:
        waits = sums.get(name)
        found[f"{name}_mean"] = waits["sum"] / waits["n"] if waits else None
        p50, p95 = percentiles(waits["counts"], (0.5, 0.95)) if waits else (None, None)
        found[f"{name}_p50"], found[f"{name}_p95"] = p50, p95
    return {name: None if value is None else round(value, 5) for name, value in found.items()}


def percentiles(counts: Mapping[str, int], shares: Iterable[float]) -> list[float]:
    """About: as if values lay evenly in their buckets. `counts`: not of nothing; `shares`: rise."""
    buckets = sorted((int(bucket), count) for bucket, count in counts.items() if count)
    total, before, found, at = sum(counts.values()), 0, [], 0
    for share in shares:
        wanted = share * total
        while before + buckets[at][1] < wanted and at < len(buckets) - 1:
            before += buckets[at][1]
            at += 1
        bucket, count = buckets[at]
        low = SECONDS[bucket - 1] if bucket else 0.0
        high = SECONDS[min(bucket, len(SECONDS) - 1)]
        found.append(low + (high - low) * (wanted - before) / count)
    return found


_NAMES: Sequence[str] = tuple(values({}, FINE_S, None))
