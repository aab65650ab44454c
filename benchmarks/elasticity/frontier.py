"""Laws as curves: each at several settings, cost against how many requests wait too long. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SLO_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Point:
    """One law at one setting on one trace."""

    law: str
    setting: str
    cost: float  # replica-seconds over the clairvoyant's
    within: float  # share of requests that waited no longer than SLO_WAIT_S
    replica_seconds: float
    wait_p50: float
    wait_p95: float
    wait_p99: float
    starts: int
    default: bool  # the law's own defaults

    def dominates(self, other: "Point") -> bool:
        """Not worse in cost and waiting, better in one."""
        if self.cost > other.cost or self.within < other.within:
            return False
        return self.cost < other.cost or self.within > other.within


def curve(points: Iterable[Point]) -> list[Point]:
    """Those that none of the others dominates, cheapest first."""
    points = list(points)
    best = [p for p in points if not any(q.dominates(p) for q in points)]
    return sorted(best, key=lambda p: (p.cost, -p.within))


def dominating(baselines: Iterable[Point], ours: Iterable[Point]) -> list[Point]:
    """Baselines' points that lie below and left of our curve, which goes straight from one of our
    points to the next (a deployment may use one setting in some hours, the other in the rest)."""
    line = curve(ours)
    return [b for b in baselines if b.within > _within_at(line, b.cost) + 1e-9]


def _within_at(line: Sequence[Point], cost: float) -> float:
    """The share of requests in time that a curve reaches at a cost."""
    below = [p for p in line if p.cost <= cost]
    if not below:
        return 0.0
    above = [p for p in line if p.cost > cost]
    left = below[-1]
    mixed = [
        a.within + (b.within - a.within) * (cost - a.cost) / (b.cost - a.cost)
        for a in below
        for b in above
    ]
    return max([left.within, *mixed])


def cheapest(points: Iterable[Point], within: float) -> Point | None:
    """That meets a share of requests in time."""
    good = [p for p in points if p.within >= within]
    return min(good, key=lambda p: p.cost, default=None)
