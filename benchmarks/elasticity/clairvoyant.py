"""What a load costs at least, in replica-seconds: two lower bounds to measure laws against.

Jobs are (arrival, hold) in seconds. Both count replicas from the request for them (a cold start
costs like work) until the last job has ended, which may be after the trace's horizon; a law's cost
must be counted likewise.
"""

from collections.abc import Iterable

Job = tuple[float, float]


def work_bound(jobs: Iterable[Job], slots: int) -> float:
    """All slots always full, nothing starts: the sum of holds / slots. No law can be below it."""
    return sum(hold for _, hold in jobs) / slots


def zero_wait_bound(jobs: Iterable[Job], slots: int, cold_start_s: float) -> float:
    """The cheapest that lets no job wait, if every arrival were known beforehand.

    With x(t) jobs that have arrived and not ended, level k = 1, 2, … is busy while x(t) > (k - 1) *
    slots. A level costs its busy time, `cold_start_s` for its first start, and for each gap between
    two busy times the cheaper of staying (the gap) and starting again (`cold_start_s`). Jobs are
    taken to move between replicas without cost, so it is a bound also for laws that place them
    badly. A law that lets jobs wait may be below it, never below `work_bound`.
    """
    cost = 0.0
    idle_since: list[float | None] = []  # by level; None while it is busy
    running = 0
    for at, change in _changes(jobs):
        level = running // slots if change > 0 else (running - 1) // slots
        running += change
        if change > 0 and running == level * slots + 1:  # the level's first job: busy from here
            if level == len(idle_since):
                idle_since.append(None)
                cost += cold_start_s - at
                continue
            ended = idle_since[level]
            assert ended is not None
            cost += min(at - ended, cold_start_s) - at
            idle_since[level] = None
        elif change < 0 and running == level * slots:  # its last job ended
            cost += at
            idle_since[level] = at
    assert running == 0
    return cost


def _changes(jobs: Iterable[Job]) -> list[tuple[float, int]]:
    """Starts (+1) and ends (-1) by time; at the same instant ends free slots for starts."""
    changes: list[tuple[float, int]] = []
    for arrival, hold in jobs:
        if hold <= 0:
            raise ValueError(f"a job at {arrival} s holds its slot for {hold} s")
        changes += [(arrival, 1), (arrival + hold, -1)]
    return sorted(changes)
