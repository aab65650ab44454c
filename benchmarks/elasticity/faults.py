"""Seeded runs through faults, on all cores: what went wrong, by kind."""

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from scheduler.simulator.scenario import Scenario, Verdict

_KINDS = {
    "double_starts": ("double start", "orphan"),
    "lost_wakeups": ("lost wake-up", "lost job", "closed over work"),
    "stuck": ("stuck",),
    "below_min": ("below min",),
}


def run_faults(seeds: int) -> dict[str, object]:
    """`failed_seeds` are replayed by `Scenario(seed).run()`."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_verdict, range(seeds), chunksize=20))
    problems = [p for v in found for p in v.problems]
    counts = {
        key: sum(any(p.startswith(k) for k in kinds) for p in problems)
        for key, kinds in _KINDS.items()
    }
    return {
        "seeds": seeds,
        **counts,
        "failed_seeds": [v.seed for v in found if v.problems],
        "requests": sum(v.jobs for v in found),
        "replica_starts": sum(v.starts for v in found),
        "faults": dict(Counter(fault for v in found for fault in v.faults)),
    }


def _verdict(seed: int) -> Verdict:
    return Scenario(seed).run()
