"""Decision + what exists → actions. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ReplicaView:
    id: str
    state: str  # starting, ready or draining
    running: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """`abort`: replicas that never served; `drain`: finish what runs, then go; `keep`: un-drain."""

    start: int = 0
    keep: list[str] = field(default_factory=list)
    drain: list[str] = field(default_factory=list)
    abort: list[str] = field(default_factory=list)


def plan(wanted: int, replicas: Sequence[ReplicaView]) -> Plan:
    """A draining replica is capacity: it is kept before a new one is started. When there are too
    many, those that don't serve yet go first, then the least busy."""
    starting = [r for r in replicas if r.state == "starting"]
    ready = sorted((r for r in replicas if r.state == "ready"), key=lambda r: r.running)
    draining = [r for r in replicas if r.state == "draining"]
    missing = wanted - len(starting) - len(ready)
    if missing >= 0:
        keep = [r.id for r in draining[:missing]]
        return Plan(start=missing - len(keep), keep=keep)
    abort = [r.id for r in starting[:-missing]]
    surplus = -missing - len(abort)
    return Plan(abort=abort, drain=[r.id for r in ready[:surplus]])
