"""Replicas in memory, for simulators: they start late, fail, hang and die as planned, on any clock.

Nothing sleeps and nothing runs: what a replica is at an instant follows from when it was started.
"""

import builtins
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from scheduler.drivers.base import ReplicaSpec, Running


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class StartPlan:
    """What becomes of a start. It may fail before it is ready, or die some time after."""

    ready_after_s: float = 0.0
    fails_after_s: float = math.inf
    log_tail: str = ""


HANGS = StartPlan(ready_after_s=math.inf)


@dataclass(slots=True)
class FakeReplica:
    spec: ReplicaSpec
    plan: StartPlan
    started_at: float
    killed_at: float = math.inf

    def phase(self, now: float) -> Phase:
        age_s = now - self.started_at
        if now >= self.killed_at or age_s >= self.plan.fails_after_s:
            return Phase.ENDED
        return Phase.READY if age_s >= self.plan.ready_after_s else Phase.STARTING


class FakeDriver:
    """`plan` is asked once a start; it may raise OSError, as a real driver's start does.

    `replicas` is the machine: drivers that share it see the same replicas.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        plan: Callable[[ReplicaSpec], StartPlan] = lambda _: StartPlan(),
        replicas: dict[str, FakeReplica] | None = None,
    ) -> None:
        self._clock = clock
        self._plan = plan
        self.replicas = {} if replicas is None else replicas

    def start(self, spec: ReplicaSpec) -> None:
        if spec.id not in self.replicas:
            self.replicas[spec.id] = FakeReplica(spec, self._plan(spec), self._clock())

    def stop(self, replica: str) -> None:
        self.replicas.pop(replica, None)

    def list(self) -> builtins.list[Running]:
        return [
            Running(replica, alive=False, log_tail=self.replicas[replica].plan.log_tail)
            if phase == Phase.ENDED
            else Running(replica, alive=True)
            for replica, phase in self.phases().items()
        ]

    def phases(self) -> dict[str, Phase]:
        """Where each replica is now."""
        now = self._clock()
        return {replica: fake.phase(now) for replica, fake in self.replicas.items()}

    def is_alive(self, replica: str) -> bool:
        found = self.replicas.get(replica)
        return found is not None and found.phase(self._clock()) != Phase.ENDED

    def kill(self, replica: str) -> None:
        """A fault: it ends now, by itself."""
        if replica in self.replicas:
            self.replicas[replica].killed_at = self._clock()
