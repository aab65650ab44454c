"""A decision → what its owner reads: why, and what would change it. Pure: it asks the law."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from loraplex.explanation import Explanation
from scheduler.placement import TURN_S, full
from scheduler.reconcile import Decided
from scheduler.scaling import Law

_MORE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_LATER_S = (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def explain(decided: Decided, now: float, law: Law) -> Explanation:
    seen, decision = decided.seen, decided.decision
    return Explanation(
        at=now,
        wanted=decision.replicas,
        allowed=min(decision.replicas, decided.allowed),
        has=seen.ready + seen.starting,
        reason=decision.reason,
        inputs=dict(decision.inputs),
        would_change=list(_changes(decided, now, law)),
        starting_since=decided.starting_since,
        cold_start_s=seen.cold_start_s,
    )


def _changes(decided: Decided, now: float, law: Law) -> Iterator[str]:
    cfg, wanted = decided.scaling, decided.decision.replicas
    if decided.allowed < wanted:
        yield (
            f"Up: {full(decided.holders, decided.tenant)}. Who has no work yields, equals take "
            f"turns of {TURN_S:g} s; min_replicas and a higher priority don't."
        )
    elif wanted >= cfg.max_replicas:
        yield f"Up: only a higher max_replicas (now {cfg.max_replicas})."
    else:
        yield _up(decided, now, law)
    if decided.change_waits:
        holders = full(decided.holders, decided.tenant)
        yield f"The change that is rolled out waits for a place: {holders}."
    if wanted <= cfg.min_replicas:
        if wanted:
            yield f"Down: only a lower min_replicas (now {cfg.whose_min})."
    else:
        yield _down(decided, now, law)


def _up(decided: Decided, now: float, law: Law) -> str:
    """The least number of further requests that wait, by trying."""
    seen = decided.seen

    def wants_more(more: int) -> bool:
        arrived = replace(seen, waiting=seen.waiting + more, arrived=seen.arrived + more)
        decision, _ = law(decided.scaling, arrived, decided.memory, now)
        return decision.replicas > decided.decision.replicas

    enough = next((n for n in _MORE if wants_more(n)), None)
    if enough is None:
        return f"Up: more than {_MORE[-1]} further requests at once."
    low, high = enough // 2, enough
    while high - low > 1:
        middle = ceil((low + high) / 2)
        low, high = (low, middle) if wants_more(middle) else (middle, high)
    return f"Up: {high} further request{'s' if high > 1 else ''} at once."


def _down(decided: Decided, now: float, law: Law) -> str:
    """How long without work, by trying."""
    seen = decided.seen
    done = replace(seen, waiting=0, running=0)
    _, memory = law(decided.scaling, done, decided.memory, now)
    for later in _LATER_S:
        decision, _ = law(decided.scaling, done, memory, now + later)
        if decision.replicas < decided.decision.replicas:
            return f"Down: {later} s without work, or sooner."
    return f"Down: more than {_LATER_S[-1]} s without work."
