"""What the laws of others share: the target's use, the bounds, an answer that stays the same."""

from math import ceil

from scheduler.scaling import Decision, Observation, Scaling

UTILISATION = 0.7  # Knative's container-concurrency-target-percentage, for all that have a target


def shares(load: float, slots: int) -> int:
    """Replicas at the target's use; a mean's rounding error is no replica."""
    return ceil(load / (UTILISATION * slots) - 1e-6)


def existing(cfg: Scaling, seen: Observation) -> Decision:
    """A new leader without memory begins with what there is."""
    return within(cfg, Decision(seen.ready + seen.starting, "found at the start"))


def answer(cfg: Scaling, want: int, last: Decision, reason: str) -> Decision:
    if want == last.replicas and last.reason == reason:
        return within(cfg, last)
    return within(cfg, Decision(want, reason))


def within(cfg: Scaling, decision: Decision) -> Decision:
    if cfg.min_replicas <= decision.replicas <= cfg.max_replicas:
        return decision
    bounded = max(cfg.min_replicas, min(decision.replicas, cfg.max_replicas))
    return Decision(bounded, decision.reason)
