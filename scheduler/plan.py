"""How many there should be + what exists → which to start, keep, drain, abort. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from scheduler.facts import ReplicaFacts


@dataclass(frozen=True, slots=True)
class Plan:
    """`abort`: replicas that never served; `drain`: finish what runs, then go; `keep`: un-drain."""

    start: int = 0
    keep: list[str] = field(default_factory=list)
    drain: list[str] = field(default_factory=list)
    abort: list[str] = field(default_factory=list)


def plan(wanted: int, replicas: Sequence[ReplicaFacts], target: int) -> Plan:
    """Towards `wanted` replicas of the revision `target`, one lane.

    A draining replica is capacity: it is kept before a new one is started. When there are too many,
    those that don't serve yet go first, then the least busy; of these, the one with the fewest
    adapters, which are the least to lose. Replicas of other revisions serve until as many of the
    target do, one more than `wanted` at most meanwhile.
    """
    new = [r for r in replicas if r.revision == target]
    old = [r for r in replicas if r.revision != target]
    serving = _in(old, ReplicaState.READY)
    found = _towards(wanted, new)
    if serving:
        room = max(
            0, wanted + 1 - len(serving) - sum(r.state != ReplicaState.DRAINING for r in new)
        )
        found = replace(found, start=min(found.start, room))
    surplus = len(serving) - max(0, wanted - len(_in(new, ReplicaState.READY)))
    found.drain.extend(r.id for r in _least_missed(serving)[: max(0, surplus)])
    found.abort.extend(r.id for r in _in(old, ReplicaState.STARTING))
    return found


def plan_beside(
    wanted: int, replicas: Sequence[ReplicaFacts], target: int, lane: Lane, *, trial: bool
) -> Plan:
    """The same where the target has another lane than `lane`, which requests still go to: as many
    of the old ones go on meanwhile. On trial, one new one starts though nobody asks for it."""
    new = plan(max(wanted, trial), [r for r in replicas if r.lane != lane], target)
    old = _towards(wanted, [r for r in replicas if r.lane == lane])
    return Plan(new.start, new.keep, [*new.drain, *old.drain], [*new.abort, *old.abort])


def in_place(replicas: Sequence[ReplicaFacts], target: int) -> list[str]:
    """The one that makes room for its successor, where the fleet has no room for both; none while
    an earlier one is on its way."""
    if any(r.state != ReplicaState.READY for r in replicas):
        return []
    old = [r for r in replicas if r.revision != target]
    return [r.id for r in _least_missed(old)[:1]]


def _towards(wanted: int, replicas: Sequence[ReplicaFacts]) -> Plan:
    starting = _in(replicas, ReplicaState.STARTING)
    ready = _in(replicas, ReplicaState.READY)
    draining = [r for r in _in(replicas, ReplicaState.DRAINING) if r.alive]
    missing = wanted - len(starting) - len(ready)
    if missing >= 0:
        keep = [r.id for r in sorted(draining, key=lambda r: -r.running)[:missing]]
        return Plan(start=missing - len(keep), keep=keep)
    youngest = sorted(starting, key=lambda r: -r.created_at)
    abort = [r.id for r in youngest[:-missing]]
    surplus = -missing - len(abort)
    return Plan(abort=abort, drain=[r.id for r in _least_missed(ready)[:surplus]])


def _in(replicas: Sequence[ReplicaFacts], state: ReplicaState) -> list[ReplicaFacts]:
    return [r for r in replicas if r.state == state]


def _least_missed(replicas: Sequence[ReplicaFacts]) -> list[ReplicaFacts]:
    return sorted(replicas, key=lambda r: (r.running, len(r.seen.report.adapters) if r.seen else 0))
