"""Many deployments on a fleet that can't hold all of them: a few carry the load, most sleep most of
the time, all by Zipf. The laws meet the real placement: priorities are equal, idle ones yield."""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from benchmarks.elasticity.frontier import SLO_WAIT_S
from benchmarks.elasticity.judge import COLD_START_S, Setting, settings
from benchmarks.elasticity.replica_model import SLOTS, hold_s
from benchmarks.elasticity.traces import zipf
from scheduler.simulator.traces import Arrival, run

DEPLOYMENTS, PLACES, HOURS = 1000, 48, 0.5
QUICK_DEPLOYMENTS, QUICK_HOURS = 100, 0.25


@dataclass(frozen=True, slots=True)
class Shared:
    """What one law, set alike for all deployments, makes of the fleet."""

    law: str
    setting: str
    within: float  # share of all requests that waited no longer than SLO_WAIT_S
    wait_p95: float
    starts: int
    used: float  # of the fleet's places, over the whole time


def judge_fleet(*, quick: bool) -> list[dict[str, Any]]:
    """Each law's documented defaults, and ours."""
    todo = [each for each in settings() if each.default]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return [asdict(found) for found in pool.map(_judge, todo, [quick] * len(todo))]


@cache
def _arrivals(deployments: int, hours: float) -> list[Arrival]:
    traces = zipf(deployments, hours)
    found = [Arrival(r.at, hold_s(r), i) for i, trace in enumerate(traces) for r in trace.requests]
    return sorted(found, key=lambda arrival: arrival.at)


def _judge(setting: Setting, quick: bool) -> Shared:
    deployments, hours = (QUICK_DEPLOYMENTS, QUICK_HOURS) if quick else (DEPLOYMENTS, HOURS)
    places = PLACES * deployments // DEPLOYMENTS
    found = run(
        setting.rule,
        _arrivals(deployments, hours),
        hours * 3600,
        scaling=replace(setting.scaling, max_replicas=places),
        slots=SLOTS,
        cold_start_s=COLD_START_S,
        deployments=deployments,
        fleet=places,
    )
    return Shared(
        law=setting.law,
        setting=setting.name,
        within=found.within(SLO_WAIT_S),
        wait_p95=found.wait(0.95),
        starts=found.starts,
        used=found.replica_s / (places * hours * 3600),
    )
