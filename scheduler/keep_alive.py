"""How long an idle replica is worth keeping, learned from the gaps between uses. Pure.

After a level (the k-th replica) was last needed it is kept for `keep_s`; where gaps are regular it
may be let go and come back before the next use is expected (`from_s` … `until_s`, the prewarmed
window), as in Shahrad et al., "Serverless in the Wild" (ATC'20). Without enough gaps: as long as a
cold start is worth, which is never worse than twice the best (ski rental, Karlin et al. 1988).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FEW = 8  # gaps; with less, nothing is learned
MOST = 64  # gaps that are remembered
SHORTEST_GAP_S = 5.0  # shorter ones are a part of being used
_GRID_S = (SHORTEST_GAP_S, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 1800.0, 3600.0)
_WINDOW_KEEPS_S = (SHORTEST_GAP_S, 15.0, 60.0, 120.0)  # before a prewarmed window
_CLEAR_GAIN = 0.8  # a prewarmed window must cost less than this share of the best plain keep-alive


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Seconds since the level was last needed."""

    keep_s: float
    from_s: float = 0.0  # prewarmed window; empty: from_s == until_s
    until_s: float = 0.0

    def keeps(self, idle_s: float) -> bool:
        return idle_s < self.keep_s or self.from_s <= idle_s < self.until_s


def learn(
    gaps: Sequence[float], worth_s: float, cold_start_s: float, longest_s: float
) -> KeepAlive:
    """The policy that would have cost least over `gaps` (seconds, latest last).

    `worth_s`: idle seconds that one avoided cold start is worth; `longest_s`: never kept longer in
    one piece. Cost of a gap: idle seconds, plus `worth_s` where the next use meets a cold start,
    plus `cold_start_s` of a replica that starts in a prewarmed window.
    """
    if len(gaps) < FEW:
        return KeepAlive(min(worth_s, longest_s))
    grid = [t for t in _GRID_S if t < longest_s] + [longest_s]
    plain = min(grid, key=lambda t: _cost(gaps, t, worth_s))
    best, least = KeepAlive(plain), _CLEAR_GAIN * _cost(gaps, plain, worth_s)
    for keep_s in [t for t in _WINDOW_KEEPS_S if t <= longest_s]:
        for from_s, until_s in _windows(gaps, keep_s, cold_start_s, longest_s):
            cost = _window_cost(gaps, keep_s, from_s, until_s, worth_s, cold_start_s)
            if cost < least:
                best, least = KeepAlive(keep_s, from_s, until_s), cost
    return best


def _windows(
    gaps: Sequence[float], keep_s: float, cold_start_s: float, longest_s: float
) -> Iterator[tuple[float, float]]:
    """In which most of the gaps end that outlast `keep_s`."""
    long = sorted(gap for gap in gaps if gap > keep_s)
    if len(long) < FEW // 2:
        return
    for low in (0.0, 0.05, 0.1, 0.25):
        from_s = _quantile(long, low) * 0.98 - 1.5 * cold_start_s
        for high in (0.75, 0.9, 0.95, 1.0):
            until_s = _quantile(long, high) * 1.02 + 1.0
            if keep_s < from_s < until_s <= from_s + longest_s:
                yield from_s, until_s


def _cost(gaps: Sequence[float], keep_s: float, worth_s: float) -> float:
    return sum(gap if gap <= keep_s else keep_s + worth_s for gap in gaps)


def _window_cost(
    gaps: Sequence[float],
    keep_s: float,
    from_s: float,
    until_s: float,
    worth_s: float,
    cold_start_s: float,
) -> float:
    cost = 0.0
    for gap in gaps:
        if gap <= keep_s:
            cost += gap
        elif gap <= from_s:
            cost += keep_s + worth_s
        elif gap <= from_s + cold_start_s:  # it is starting: a part of the wait
            cost += keep_s + gap - from_s + worth_s
        elif gap <= until_s:
            cost += keep_s + gap - from_s
        else:
            cost += keep_s + until_s - from_s + worth_s
    return cost


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
