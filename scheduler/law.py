"""How many replicas a deployment should have: a pure function, so that a simulator can run it.

1. Demand: replicas that the arriving work keeps busy, from the arrival rate (15 s), its trend, and
   how long a request holds a slot, all measured.
2. From zero at once. Further up only when what waits would outlast a cold start at the present
   capacity: a replica that comes after the backlog has gone helps nobody.
3. Down level by level: the k-th replica is kept as long as it was worth keeping in the past
   (`keep_alive.py`), never longer than the cooldown.

The reasoning and what it was measured against: benchmarks/README.md, "Elasticity".
"""

from dataclasses import dataclass, replace
from math import ceil, exp

from scheduler.keep_alive import MOST, SHORTEST_GAP_S, KeepAlive, learn
from scheduler.scaling import Decision, Observation, Scaling

_SPARE = 0.2  # largest share of its slots that a replica should have free
_SPARE_WEIGHT = 3.0  # the weight of a cold start at which it is half of that
_SHORTEST_WINDOW_S = 15.0  # over which arrivals are averaged
_COLD_START_WAIT_S = 10.0  # target wait at which it is as long as a cold start
_COLD = 1 / 3  # … where nobody serves meanwhile
_SLOWER = 6.0  # the window that the trend is taken against
_HOLD_S = 300.0  # busy time over which a request's hold is averaged
_FIRST_HOLD_S = 5.0  # what is believed before any request has ended
_CLEAR_WAITS = 3.0  # a backlog is cleared within so many target waits
_FELT_S = 20.0  # a cold start is felt as if it took at least so long
_FURTHER = 0.3  # a cold start of the second replica and on is felt less than that of the first


@dataclass(frozen=True, slots=True)
class Level:
    """The k-th replica: when it was last needed, and the gaps between its uses (seconds)."""

    needed_at: float
    gaps: tuple[float, ...] = ()
    policy: KeepAlive | None = None  # learned from the gaps; None: to be learned
    learned_for: tuple[float, float, bool] = (0.0, 0.0, True)  # its worth_s, longest_s, learns


@dataclass(frozen=True, slots=True)
class Memory:
    at: float
    arrived: int
    ended: int
    fast: float = 0.0  # arrivals a second
    slow: float = 0.0
    held_s: float = _FIRST_HOLD_S  # slot seconds of `held` requests, weighted by age
    held: float = 1.0
    levels: tuple[Level, ...] = ()

    def hold_s(self, running: int) -> float:
        """For how long a request holds a slot. Those that run have held theirs for a part of it."""
        return self.held_s / (self.held + running)


def decide(
    cfg: Scaling, seen: Observation, memory: Memory | None, now: float
) -> tuple[Decision, Memory]:
    """See `scaling.Law`. Without memory (a new deployment, or all was lost) the replicas that exist
    count as needed just now."""
    window_s = _window_s(cfg, seen)
    memory = _measured(seen, memory, now, window_s)
    slots = min(seen.slots, cfg.threshold)
    hold_s = memory.hold_s(seen.running)
    demand = _demand(memory, seen, window_s) * hold_s / slots
    need, why = _need(cfg, seen, slots, hold_s, demand)
    if need > cfg.max_replicas:
        need, why = cfg.max_replicas, f"{why}; max_replicas is {cfg.max_replicas}"
    levels, kept = _levels(cfg, seen, memory.levels, need, now)
    wanted = max(cfg.min_replicas, need, min(kept, cfg.max_replicas))
    inputs = {
        "waiting": seen.waiting,
        "running": seen.running,
        "ready": seen.ready,
        "starting": seen.starting,
        "slots": slots,
        "arrivals_per_s": round(memory.fast, 4),
        "hold_s": round(hold_s, 3),
        "demand": round(demand, 3),
        "cold_start_s": round(seen.cold_start_s, 2),
        "needed": need,
        "kept": kept,
    }
    reason = _reason(cfg, seen, need, kept, wanted, why, levels, now)
    return Decision(wanted, reason, inputs), replace(memory, levels=levels)


def _window_s(cfg: Scaling, seen: Observation) -> float:
    """Over which arrivals are averaged. A new replica is of use a cold start from now: what lasts
    for less does not concern it. The shorter the wait that is aimed at, the sooner it acts."""
    return max(_SHORTEST_WINDOW_S, seen.cold_start_s * cfg.target_wait_s / _COLD_START_WAIT_S)


def _measured(seen: Observation, memory: Memory | None, now: float, window_s: float) -> Memory:
    ended = seen.arrived - seen.waiting - seen.running
    if memory is None:
        levels = tuple(Level(now) for _ in range(seen.ready + seen.starting))
        return Memory(now, seen.arrived, ended, levels=levels)
    passed = now - memory.at
    if passed <= 0:
        return memory
    rate = max(0, seen.arrived - memory.arrived) / passed
    fast, slow = exp(-passed / window_s), exp(-passed / (_SLOWER * window_s))
    held_s, held = memory.held_s, memory.held
    done = max(0, ended - memory.ended)
    if seen.running or done:
        weight = exp(-passed / _HOLD_S)
        held_s = held_s * weight + seen.running * passed
        held = held * weight + done
    return Memory(
        *(now, seen.arrived, ended),
        fast=fast * memory.fast + (1 - fast) * rate,
        slow=slow * memory.slow + (1 - slow) * rate,
        held_s=held_s,
        held=max(held, 1e-3),
        levels=memory.levels,
    )


def _demand(memory: Memory, seen: Observation, window_s: float) -> float:
    """Arrivals a second that a replica will meet which is asked for now. The trend is followed
    where the window is shorter than a cold start."""
    ahead = max(0.0, 1.0 - window_s / max(seen.cold_start_s, 1e-6))
    return max(0.0, memory.fast + (memory.fast - memory.slow) * ahead)


def _need(
    cfg: Scaling, seen: Observation, slots: int, hold_s: float, demand: float
) -> tuple[int, str]:
    """Replicas that the present work needs, and why."""
    load = seen.waiting + seen.running
    have = seen.ready + seen.starting
    weight = cfg.cold_start_weight
    busy = 1.0 - _SPARE * weight / (weight + _SPARE_WEIGHT)
    if load == 0:
        return 0, "no work"
    level = max(1, min(have, ceil(load / (busy * slots))))
    if have == 0:
        return max(
            1, ceil(min(cfg.max_replicas + 1.0, demand / busy))
        ), "work has come and there is no replica"
    over = max(0, load - slots * have)  # those that find no slot
    clear_s = _CLEAR_WAITS * cfg.target_wait_s * (1.0 if seen.ready else _COLD)
    if over:
        # Replica-seconds that are left when one that is asked for now would be ready; until then
        # those that start will have served for as long as they have been starting.
        served_s = (seen.ready - demand) * seen.cold_start_s + seen.starting_s
        left = over * hold_s / slots - served_s
        if left > 0:
            want = ceil(min(cfg.max_replicas + 1.0, demand / busy + left / clear_s))
            if want > level:
                return want, f"the backlog outlasts a cold start by {left:.0f} replica-seconds"
        return level, "the present replicas clear the backlog before another would be ready"
    if demand / busy > have:
        return have + 1, f"arrivals keep {demand:.1f} replicas busy"
    return level, "the present replicas carry the load"


def _levels(
    cfg: Scaling, seen: Observation, levels: tuple[Level, ...], need: int, now: float
) -> tuple[tuple[Level, ...], int]:
    """The levels after this look, and the highest one that is needed or worth keeping."""
    known = list(levels)
    kept = 0
    for index in range(max(need, len(known))):
        if index < need:
            if index == len(known):
                known.append(Level(now))
                continue
            level = known[index]
            gap = now - level.needed_at
            if gap > SHORTEST_GAP_S:
                gaps = (*level.gaps, gap)[-MOST:]
                known[index] = Level(now, gaps)
            else:
                known[index] = Level(now, level.gaps, level.policy, level.learned_for)
            continue
        level = known[index] = _taught(cfg, seen, known[index], index)
        assert level.policy is not None
        if level.policy.keeps(now - level.needed_at):
            kept = index + 1
    return tuple(known), kept


def _taught(cfg: Scaling, seen: Observation, level: Level, index: int) -> Level:
    """With a policy for its gaps and for what a cold start costs now (within a fifth)."""
    weight = cfg.cold_start_weight * (_FURTHER if index else 1.0)
    worth_s = seen.cold_start_s + weight * max(seen.cold_start_s, _FELT_S)
    known_s, longest_s, learned = level.learned_for
    same = (longest_s, learned) == (cfg.cooldown_s, cfg.learns)
    if level.policy is not None and same and _near(known_s, worth_s):
        return level
    if cfg.learns:
        policy = learn(level.gaps, worth_s, seen.cold_start_s, cfg.cooldown_s)
    else:
        policy = KeepAlive(cfg.cooldown_s)
    return replace(level, policy=policy, learned_for=(worth_s, cfg.cooldown_s, cfg.learns))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= 0.2 * max(a, b)


def _reason(
    cfg: Scaling,
    seen: Observation,
    need: int,
    kept: int,
    wanted: int,
    why: str,
    levels: tuple[Level, ...],
    now: float,
) -> str:
    load = f"{seen.waiting} waiting + {seen.running} running"
    if wanted > max(need, kept):
        return f"{load}; min_replicas is {cfg.whose_min}"
    if wanted > need:
        level = levels[wanted - 1]
        idle_s = now - level.needed_at
        assert level.policy is not None
        if idle_s < level.policy.keep_s:
            left = level.policy.keep_s - idle_s
            return f"{load}; replica {wanted} is kept for another {left:.0f} s"
        return f"{load}; the next use of replica {wanted} is expected soon"
    return f"{load}: {why}"
