"""The laws that ours is compared with, each with its documented defaults.

Each is a frozen value whose fields are its knobs, so that a frontier is drawn by varying one. They
are called about once a second: between their own times of evaluation they repeat their last answer,
and a count that was seen is taken to hold until the next call. Where a law measures use, its target
is 0.7 of the slots for all of them, to be fair (Ray's and KEDA's own defaults know no slots).
"""

from dataclasses import dataclass
from math import inf

from scheduler.scaling import Decision, Law, Observation, Scaling
from scheduler.simulator.answers import UTILISATION, answer, existing, shares, within
from scheduler.simulator.knative import Knative
from scheduler.simulator.windows import Level, Peaks, next_tick, raised

RAY_PUSH_S = 10.0  # metrics_interval_s


@dataclass(frozen=True, slots=True)
class KedaMemory:
    poll_at: float  # KEDA's next look (seconds)
    sync_at: float  # the HPA's
    active_at: float  # the last look of KEDA's that found work
    peaks: Peaks
    x: int  # the count at the last call: what a look between that and this one saw
    decision: Decision


@dataclass(frozen=True, slots=True)
class Keda:
    """KEDA for 0 <-> 1 and the Kubernetes HPA that it drives for 1 … N (scaling.md section 1;
    `keda-docs` 2.17 `scaledobject-spec.md`; defaults of `autoscaling/v2` HPAScalingRules).

    The metric is queued + running with an AverageValue of 0.7 of the slots. KEDA sees work only
    when it polls. The two have no common phase: the HPA's sync stands half a period after a poll.
    """

    cooldown_s: float = 300.0  # cooldownPeriod: only for -> 0; the knob of its frontier
    poll_s: float = 30.0  # pollingInterval
    sync_s: float = 15.0
    tolerance: float = 0.1
    down_window_s: float = 300.0  # stabilizationWindowSeconds
    up_pods: int = 4  # per sync, or +100 % where that is more

    def __call__(
        self, cfg: Scaling, seen: Observation, memory: KedaMemory | None, now: float
    ) -> tuple[Decision, KedaMemory]:
        x = seen.waiting + seen.running
        if memory is None:
            found = existing(cfg, seen)
            memory = KedaMemory(now, now + self.sync_s / 2, now, (), x, found)
        poll_at, sync_at, active_at = memory.poll_at, memory.sync_at, memory.active_at
        peaks, want = memory.peaks, memory.decision.replicas
        if now < poll_at and now < sync_at:
            if x != memory.x:
                memory = KedaMemory(poll_at, sync_at, active_at, peaks, x, memory.decision)
            return within(cfg, memory.decision), memory
        if now >= poll_at:
            poll_at = next_tick(poll_at, self.poll_s, now)
            if memory.x if poll_at - self.poll_s < now else x:
                active_at, want = poll_at - self.poll_s, max(1, want)
            elif now - active_at >= self.cooldown_s:
                want = 0
        if now >= sync_at:
            sync_at = next_tick(sync_at, self.sync_s, now)
            if want:  # at zero the HPA is off
                load = memory.x if sync_at - self.sync_s < now else x
                want, peaks = self._sync(cfg, load / seen.slots, want, peaks, now)
        decision = answer(cfg, want, memory.decision, "KEDA + HPA")
        return decision, KedaMemory(poll_at, sync_at, active_at, peaks, x, decision)

    def _sync(
        self, cfg: Scaling, load: float, current: int, peaks: Peaks, now: float
    ) -> tuple[int, Peaks]:
        """`load` in replicas' slots."""
        ratio = load / (UTILISATION * current)
        want = current if abs(ratio - 1) <= self.tolerance else shares(load, 1)
        want = max(1, cfg.min_replicas, min(want, cfg.max_replicas))
        peaks = raised(peaks, want, now, self.down_window_s)
        if want > current:
            return min(want, max(2 * current, current + self.up_pods)), peaks
        return min(current, peaks[0][1]), peaks


@dataclass(frozen=True, slots=True)
class RayMemory:
    level: Level
    since: float  # the first look (seconds)
    direction: int  # 1: more are wanted, -1: fewer, 0: it is as wanted
    turned_at: float  # since when
    act_at: float  # when the direction will have held for long enough
    decision: Decision


@dataclass(frozen=True, slots=True)
class RayServe:
    """Ray Serve's request-based policy (scaling.md section 1; ray-project/ray
    `python/ray/serve/{config,autoscaling_policy,_private/constants}.py`).

    With its factors at 1 the wanted number is the mean load over the target, rounded up. A handle
    pushes its mean each 10 s, but at once where there is no replica. Zero is reached from 1 only,
    so an idle lane of several takes the down delay twice.
    """

    down_delay_s: float = 600.0  # the knob of its frontier; also for 1 -> 0
    up_delay_s: float = 30.0
    look_back_s: float = 30.0

    def __call__(
        self, cfg: Scaling, seen: Observation, memory: RayMemory | None, now: float
    ) -> tuple[Decision, RayMemory]:
        x = seen.waiting + seen.running
        if memory is None:
            level = Level.begin(x, now, round(self.look_back_s / RAY_PUSH_S))
            memory = RayMemory(level, now, 0, now, inf, existing(cfg, seen))
        old, level, current = memory, memory.level, memory.decision.replicas
        if x and not current:
            decision = answer(cfg, 1, old.decision, "Ray Serve")
            level = level.look(x, now, RAY_PUSH_S)
            return decision, RayMemory(level, old.since, 0, now, inf, decision)
        if now < level.marked_at + RAY_PUSH_S and now < old.act_at:
            if x != level.value:
                level = level.look(x, now, RAY_PUSH_S)
                memory = RayMemory(
                    level, old.since, old.direction, old.turned_at, old.act_at, old.decision
                )
            return within(cfg, memory.decision), memory
        return self._evaluate(cfg, seen, old, level.look(x, now, RAY_PUSH_S), now)

    def _evaluate(
        self, cfg: Scaling, seen: Observation, old: RayMemory, level: Level, now: float
    ) -> tuple[Decision, RayMemory]:
        mean = level.mean(round(self.look_back_s / RAY_PUSH_S), RAY_PUSH_S, old.since)
        want = max(cfg.min_replicas, min(shares(mean, seen.slots), cfg.max_replicas))
        decision = within(cfg, old.decision)
        direction = _sign(want - decision.replicas)
        turned_at = old.turned_at if direction == old.direction else now
        act_at = turned_at + self._delay(direction)
        if now >= act_at:
            step = want if direction > 0 or decision.replicas == 1 else max(1, want)
            decision = answer(cfg, step, decision, "Ray Serve")
            direction, turned_at = _sign(want - decision.replicas), now
            act_at = now + self._delay(direction)
        return decision, RayMemory(level, old.since, direction, turned_at, act_at, decision)

    def _delay(self, direction: int) -> float:
        return (inf, self.up_delay_s, self.down_delay_s)[direction]


@dataclass(frozen=True, slots=True)
class CooldownMemory:
    """`needed_at[k]` is when at least k + 1 replicas were last needed (seconds)."""

    needed_at: tuple[float, ...]
    decision: Decision


@dataclass(frozen=True, slots=True)
class FixedCooldown:
    """As many replicas as fill their slots; a level that was needed within `seconds` is kept.

    60 s is Modal's scaledown_window, 600 s the least and 3600 s the default cooldown_time of
    Predibase (scaling.md section 1), all with a whole replica's slots as the threshold.
    """

    seconds: float

    def __call__(
        self, cfg: Scaling, seen: Observation, memory: CooldownMemory | None, now: float
    ) -> tuple[Decision, CooldownMemory]:
        if memory is None:
            found = existing(cfg, seen)
            memory = CooldownMemory((now,) * found.replicas, found)
        want = min(-(-(seen.waiting + seen.running) // seen.slots), cfg.max_replicas)
        kept = memory.needed_at
        while len(kept) > want and now - kept[-1] >= self.seconds:
            kept = kept[:-1]
        needed_at = (now,) * want + kept[want:]
        decision = answer(cfg, len(needed_at), memory.decision, "fixed cooldown")
        return decision, CooldownMemory(needed_at, decision)


def fixed_cooldown(seconds: float) -> FixedCooldown:
    return FixedCooldown(seconds)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


knative = Knative()
knative_delay = Knative(delay_s=300.0)
keda = Keda()
ray_serve = RayServe()

BASELINES: dict[str, Law] = {
    "knative": knative,
    "knative_delay": knative_delay,
    "keda": keda,
    "ray_serve": ray_serve,
    "modal_like": fixed_cooldown(60.0),
    "cooldown_600": fixed_cooldown(600.0),
    "cooldown_3600": fixed_cooldown(3600.0),
}
