"""Seeded runs of the real reconciler through faults; and that the checks can fail."""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from scheduler.law import decide
from scheduler.reconcile import Rules
from scheduler.scaling import Decision, Observation, Scaling
from scheduler.simulator.scenario import FAULTS, Breakage, Scenario, Verdict

SEEDS = range(300)


def test_nothing_is_started_twice_forgotten_or_stuck_whatever_breaks() -> None:
    """A seed is replayed by `Scenario(seed).run()`."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_verdict, SEEDS, chunksize=10))
    assert {v.seed: v.problems for v in found if v.problems} == {}
    assert {fault for v in found for fault in v.faults} == set(FAULTS)
    assert sum(v.jobs for v in found) > 30_000


def test_a_seed_is_a_run() -> None:
    first, again = Scenario(7).run(), Scenario(7).run()
    assert (first.jobs, first.starts, first.faults) == (again.jobs, again.starts, again.faults)


def _verdict(seed: int) -> Verdict:
    return Scenario(seed).run()


def never_from_zero(
    cfg: Scaling, seen: Observation, memory: Any, now: float
) -> tuple[Decision, Any]:
    decision, memory = decide(cfg, seen, memory, now)
    return (decision if seen.ready else replace(decision, replicas=0)), memory


def never_down(cfg: Scaling, seen: Observation, memory: Any, now: float) -> tuple[Decision, Any]:
    decision, memory = decide(cfg, seen, memory, now)
    return replace(decision, replicas=max(decision.replicas, seen.ready + seen.starting)), memory


def ignores_min(cfg: Scaling, seen: Observation, memory: Any, now: float) -> tuple[Decision, Any]:
    return decide(replace(cfg, min_replicas=0), seen, memory, now)


def keeps_nothing(cfg: Scaling, seen: Observation, memory: Any, now: float) -> tuple[Decision, Any]:
    """Not wrong, but often at the gate; with slow looks, work often comes in between."""
    return decide(replace(cfg, cooldown_s=0.5), seen, memory, now)


def with_law(law: Any, **broken: Any) -> Breakage:
    def rules(whole: Rules) -> Rules:
        return replace(whole, law=law)

    return Breakage(rules=rules, **broken)


@pytest.mark.parametrize(
    ("breakage", "problem"),
    [
        (with_law(never_from_zero), "lost wake-up"),
        (with_law(never_from_zero), "lost job"),
        (with_law(ignores_min), "below min"),
        (Breakage(lease=False, fencing=False, unique_names=True), "double start"),
        (with_law(keeps_nothing, idle_gate=False, slowest_look_s=2.0), "closed over work"),
    ],
    ids=["law: wake-up", "law: jobs", "law: min", "lease", "idle gate"],
)
def test_the_checks_catch_what_is_broken_on_purpose(breakage: Breakage, problem: str) -> None:
    found = (p for seed in range(100) for p in Scenario(seed, breakage).run().problems)
    assert any(p.startswith(problem) for p in found)


def test_a_law_that_keeps_nothing_loses_nothing() -> None:
    assert not [
        p
        for s in range(20)
        for p in Scenario(s, with_law(keeps_nothing, slowest_look_s=2.0)).run().problems
    ]
