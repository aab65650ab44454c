"""Every law at every setting on every trace: the real reconciler in virtual time."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.elasticity import traces
from benchmarks.elasticity.clairvoyant import zero_wait_bound
from benchmarks.elasticity.frontier import SLO_WAIT_S, Point
from benchmarks.elasticity.replica_model import SLOTS, hold_s
from scheduler.law import decide
from scheduler.scaling import Law, Scaling
from scheduler.simulator.baselines import Keda, Knative, RayServe, fixed_cooldown
from scheduler.simulator.traces import Arrival, run

OURS = "loraplex"
COLD_START_S = 60.0
MOST_REPLICAS = 400
_BOUNDS = Scaling(max_replicas=MOST_REPLICAS, threshold=SLOTS)
_COOLDOWNS_S = (15, 30, 60, 90, 120, 150, 200, 300, 400, 600, 900, 1800)
_KNOBS: list[dict[str, float]] = [
    {},
    *({"weight": w, "target_s": t} for w in (0, 3, 10, 30, 100) for t in (1, 3, 10)),
    *({"weight": w, "target_s": t} for w in (0, 3) for t in (0.5, 2, 5, 20)),
    *({"weight": 0, "target_s": 2, "cooldown_s": c} for c in _COOLDOWNS_S),
    {"weight": 0, "target_s": 1, "cooldown_s": 3600},
    *({"weight": 300, "target_s": t} for t in (3, 5, 10)),
    *(
        {"weight": 0, "target_s": t, "cooldown_s": c}
        for t in (3, 5, 10)
        for c in (120, 300, 600, 1200, 3600)
    ),
    {"weight": 0, "target_s": 0.5, "cooldown_s": 3600},
]
_QUICK: list[dict[str, float]] = [
    {},
    *({"weight": w, "target_s": t} for w in (0, 30) for t in (1, 3)),
    {"weight": 0, "target_s": 3, "cooldown_s": 60},
]


@dataclass(frozen=True, slots=True)
class Setting:
    law: str
    name: str
    rule: Law
    default: bool = False
    scaling: Scaling = _BOUNDS


def settings(*, quick: bool = False) -> list[Setting]:
    """Each law's documented defaults and other values of its most important knob, and ours."""
    found = [
        *(
            Setting("knative", f"delay {delay:g} s", Knative(delay_s=delay), delay in (0.0, 300.0))
            for delay in (0.0, 60.0, 300.0, 900.0)
        ),
        *(
            Setting("keda", f"cooldown {s:g} s", Keda(cooldown_s=s, down_window_s=s), s == 300.0)
            for s in (60.0, 300.0, 900.0)
        ),
        *(
            Setting("ray_serve", f"down delay {s:g} s", RayServe(down_delay_s=s), s == 600.0)
            for s in (60.0, 300.0, 600.0, 1800.0)
        ),
        *(
            Setting("cooldown", f"{s:g} s", fixed_cooldown(s), s in (60.0, 600.0, 3600.0))
            for s in (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
        ),
    ]
    if quick:
        found = [s for s in found if s.default]
    return found + [_ours(knobs) for knobs in (_QUICK if quick else _KNOBS)]


def _ours(knobs: dict[str, float]) -> Setting:
    """A weight, a target, and a cooldown where it is fixed."""
    known = Scaling()
    scaling = replace(
        _BOUNDS,
        cold_start_weight=knobs.get("weight", known.cold_start_weight),
        target_wait_s=knobs.get("target_s", known.target_wait_s),
        cooldown_s=knobs.get("cooldown_s", known.cooldown_s),
        learns="cooldown_s" not in knobs,
    )
    name = ", ".join(f"{key.removesuffix('_s')} {value:g}" for key, value in knobs.items())
    return Setting(OURS, name or "default", decide, not knobs, scaling)


@cache
def load(trace: str) -> tuple[tuple[Arrival, ...], float, float]:
    """Arrivals, horizon, and what the clairvoyant pays."""
    known = _traces()[trace]
    arrivals = tuple(Arrival(r.at, hold_s(r)) for r in known.requests)
    bound = zero_wait_bound([(a.at, a.hold_s) for a in arrivals], SLOTS, COLD_START_S)
    return arrivals, known.seconds, bound


@cache
def _traces() -> dict[str, traces.Trace]:
    return {t.name: t for t in [*traces.tuning(), *traces.held_out()]}


def judge(trace: str, setting: Setting) -> Point:
    arrivals, seconds, bound = load(trace)
    found = run(
        setting.rule,
        arrivals,
        seconds,
        scaling=setting.scaling,
        slots=SLOTS,
        cold_start_s=COLD_START_S,
    )
    return Point(
        law=setting.law,
        setting=setting.name,
        cost=found.replica_s / bound,
        within=found.within(SLO_WAIT_S),
        replica_seconds=found.replica_s,
        wait_p50=found.wait(0.5),
        wait_p95=found.wait(0.95),
        wait_p99=found.wait(0.99),
        starts=found.starts,
        default=setting.default,
    )


def judge_all(names: Sequence[str], *, quick: bool) -> Iterator[tuple[str, list[Point]]]:
    """By trace, as they are done."""
    todo = settings(quick=quick)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in names:
            yield name, list(pool.map(judge, [name] * len(todo), todo))
