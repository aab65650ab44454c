"""Replicas in virtual time: they load, register, take jobs, drain, die. Their processes are those
of the fake driver, which passes the same conformance test as the others."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from loraplex.keys import Lane
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.fake import HANGS, FakeDriver, StartPlan
from scheduler.simulator.lanes import Incarnation, Job, LaneState, SharedLanes
from scheduler.simulator.loop import Loop

LEASE_S = 5.0


@dataclass(slots=True)
class Usage:
    """What replicas have cost, and how often they started."""

    replica_s: float = 0.0
    starts: int = 0
    born: dict[str, float] = field(default_factory=dict)


class SimReplicas:
    def __init__(
        self, loop: Loop, shared: SharedLanes, plan: Callable[[ReplicaSpec], StartPlan], slots: int
    ) -> None:
        self._loop = loop
        self._shared = shared
        self._plan = plan
        self._slots = slots
        self._serving: dict[str, tuple[Lane, Incarnation]] = {}
        self._incarnations = 0
        self.crowded: Callable[[ReplicaSpec, str], None] = lambda spec, other: None
        self.usage = Usage()
        self.driver = FakeDriver(lambda: loop.now, self._begin)

    # Life

    def _begin(self, spec: ReplicaSpec) -> StartPlan:
        plan = self._plan(spec)
        for name, other in self.driver.replicas.items():
            same = (other.spec.host, other.spec.slot) == (spec.host, spec.slot)
            if same and self.driver.is_alive(name):
                self.crowded(spec, name)
        self.usage.starts += 1
        self.usage.born[spec.id] = self._loop.now
        lane = Lane.parse(spec.lane)
        if plan.ready_after_s < plan.fails_after_s:
            self._loop.after(plan.ready_after_s, lambda: self._ready(spec.id, lane))
        elif plan != HANGS:
            self._loop.after(plan.fails_after_s, lambda: self._ended(spec.id))
        return plan

    def _ready(self, replica: str, lane: Lane) -> None:
        if not self.driver.is_alive(replica) or replica in self._serving:
            return
        if self._shared.away:  # it can't register
            self._loop.after(1.0, lambda: self._ready(replica, lane))
            return
        self._incarnations += 1
        incarnation = Incarnation(replica, f"{replica}:{self._incarnations}", self._slots)
        state = self._shared.lane(lane)
        state.incarnations[incarnation.name] = incarnation
        state.forgotten_at = inf
        self._serving[replica] = (lane, incarnation)
        self._shared.wake(lane)
        self.take(lane)

    def stopped(self, replica: str) -> None:
        """Its process was ended by the driver, or died."""
        self._ended(replica)
        found = self._serving.pop(replica, None)
        if found is not None:
            lane, incarnation = found
            self._loop.after(LEASE_S, lambda: self._lease_out(lane, incarnation))

    def kill(self, replica: str) -> None:
        self.driver.kill(replica)
        self.stopped(replica)

    def freeze(self, replica: str, seconds: float) -> None:
        """It loses its lease and its jobs, and comes back as another incarnation."""
        found = self._serving.pop(replica, None)
        if found is None:
            return
        lane, incarnation = found
        self._loop.after(LEASE_S, lambda: self._lease_out(lane, incarnation))
        self._loop.after(max(seconds, LEASE_S), lambda: self._ready(replica, lane))

    def _ended(self, replica: str) -> None:
        born = self.usage.born.pop(replica, None)
        if born is not None:
            self.usage.replica_s += self._loop.now - born

    def _lease_out(self, lane: Lane, incarnation: Incarnation) -> None:
        incarnation.alive = False
        self.take(lane)

    # Work

    def take(self, lane: Lane) -> None:
        """Those of its replicas that have room take what waits: the jobs of the dead first."""
        if self._shared.away:
            return
        state = self._shared.lane(lane)
        for incarnation in list(state.incarnations.values()):
            if incarnation.alive and incarnation.phase == "ready" and not incarnation.drain:
                if incarnation.replica in self._serving:
                    self._fill(state, incarnation)
            elif incarnation.drain and incarnation.alive and not incarnation.jobs:
                self._leave(lane, incarnation)

    def _fill(self, state: LaneState, incarnation: Incarnation) -> None:
        dead = [i for i in state.incarnations.values() if not i.alive and i.jobs]
        while len(incarnation.jobs) < incarnation.slots:
            if dead:
                job = next(iter(dead[-1].jobs))
                del dead[-1].jobs[job]
                if not dead[-1].jobs:
                    dead.pop()
            elif state.waiting:
                job = state.waiting.popleft()
            else:
                return
            job.taken_at = self._loop.now if job.taken_at is None else job.taken_at
            ends = self._loop.now + job.hold_s
            incarnation.jobs[job] = ends
            self._loop.at(ends, self._end_of(state.lane, incarnation, job))

    def _end_of(self, lane: Lane, incarnation: Incarnation, job: Job) -> Callable[[], None]:
        def end() -> None:
            if not incarnation.alive or job not in incarnation.jobs:
                return
            if self._serving.get(incarnation.replica, (lane, None))[1] is not incarnation:
                return  # frozen, or dead
            if self._shared.away:  # its commit waits
                self._loop.after(0.5, end)
                return
            del incarnation.jobs[job]
            job.ended_at = self._loop.now
            self.take(lane)

        return end

    def _leave(self, lane: Lane, incarnation: Incarnation) -> None:
        incarnation.alive, incarnation.phase = False, "exited"
        self._serving.pop(incarnation.replica, None)
        self.driver.kill(incarnation.replica)
        self._ended(incarnation.replica)
        self._shared.wake(lane)

    def outage_over(self, seconds: float) -> None:
        """Redis was away: leases may have run out, and replicas come back as new incarnations."""
        for replica, (lane, incarnation) in list(self._serving.items()):
            if seconds > LEASE_S:
                del self._serving[replica]
                incarnation.alive = False
                self._ready(replica, lane)
        for lane in list(self._shared.states):
            self.take(lane)

    @property
    def serving(self) -> dict[str, tuple[Lane, Incarnation]]:
        return self._serving
