"""How many replicas a deployment should have: a pure function, so that a simulator can run it.

First cut: enough replicas that each has at most `scale_up_threshold` requests (queued + running); a
level that was needed within the cooldown is kept. Time comes in, memory comes in and goes out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scaling:
    """A deployment's bounds, as its owner set them."""

    min_replicas: int
    max_replicas: int
    cooldown_s: float
    threshold: int  # requests (queued + running) per replica


@dataclass(frozen=True, slots=True)
class Observation:
    waiting: int
    running: int
    replicas: int  # starting or serving


@dataclass(frozen=True, slots=True)
class Memory:
    """`needed_at[k]` is when at least k + 1 replicas were last needed (seconds)."""

    needed_at: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    replicas: int
    reason: str


def decide(
    cfg: Scaling, seen: Observation | None, memory: Memory | None, now: float
) -> tuple[Decision | None, Memory | None]:
    """The wanted number of replicas and why. No observation is not zero: no decision then.

    Without memory (a new leader) the replicas that exist count as needed just now.
    """
    if seen is None:
        return None, memory
    load = seen.waiting + seen.running
    wanted = min(-(-load // cfg.threshold), cfg.max_replicas)
    known = memory.needed_at if memory is not None else (now,) * seen.replicas
    needed_at = (now,) * wanted + known[wanted : cfg.max_replicas]
    kept = sum(now - at < cfg.cooldown_s for at in needed_at)
    replicas = max(cfg.min_replicas, wanted, kept)
    return Decision(replicas, _reason(cfg, seen, wanted, kept)), Memory(needed_at)


def _reason(cfg: Scaling, seen: Observation, wanted: int, kept: int) -> str:
    load = f"{seen.waiting} waiting + {seen.running} running"
    if max(wanted, kept) < cfg.min_replicas:
        return f"min_replicas is {cfg.min_replicas} ({load})"
    if kept > wanted:
        return f"{load} need {wanted}; cooldown of {cfg.cooldown_s:g} s keeps {kept}"
    capped = " (max_replicas)" if wanted == cfg.max_replicas and wanted else ""
    return f"{load}, {cfg.threshold} per replica: {wanted}{capped}"
