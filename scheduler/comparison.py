"""A deployment's recorded traffic, run again under its own law and under others. Pure."""

from collections.abc import Iterable, Sequence

from loraplex.comparison import Comparison, LawResult
from loraplex.messages import Traffic
from scheduler.law import decide
from scheduler.scaling import Law, Scaling
from scheduler.simulator.baselines import BASELINES
from scheduler.simulator.traces import Arrival, run

FEW = 5  # requests; with less there is nothing to say
LONGEST_S = 86400.0  # of traffic that is run again
OURS = "this deployment"


def arrivals_of(recorded: Iterable[Traffic]) -> list[Arrival]:
    """By time, from the first one on; the latest day."""
    rows = sorted((at, held_s) for each in recorded for at, _, _, held_s in each.requests)
    rows = [(at, held_s) for at, held_s in rows if at > rows[-1][0] - LONGEST_S]
    return [Arrival(at - rows[0][0], max(held_s, 0.001)) for at, held_s in rows]


def compare(
    arrivals: Sequence[Arrival], scaling: Scaling, slots: int, cold_start_s: float, now: float
) -> Comparison:
    """The others keep the deployment's bounds and have their own documented defaults."""
    seconds = arrivals[-1].at if arrivals else 0.0
    facts = (now, len(arrivals), seconds, slots, cold_start_s, scaling.target_wait_s)
    if len(arrivals) < FEW:
        return Comparison(*facts, [], f"Only {len(arrivals)} requests were recorded: too few.")
    laws: dict[str, Law] = {OURS: decide, **BASELINES}
    found = []
    for name, law in laws.items():
        # Idle time after the last request belongs to its cost.
        outcome = run(
            law,
            arrivals,
            seconds + scaling.cooldown_s,
            scaling=scaling,
            slots=slots,
            cold_start_s=cold_start_s,
        )
        found.append(
            LawResult(
                *(name, round(outcome.replica_s, 1), outcome.starts),
                *(round(outcome.wait(0.5), 2), round(outcome.wait(0.95), 2)),
                within_target=round(outcome.within(scaling.target_wait_s), 4),
            )
        )
    return Comparison(*facts, found)
