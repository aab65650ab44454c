"""Lanes in memory: what `ScalerBroker` and its scripts do, with the same epochs and gates."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import redis

from loraplex.broker.interface import Deposed, SeenLane, SeenReplica
from loraplex.keys import Lane
from loraplex.messages import Phase, ReplicaReport

FORGOTTEN_AFTER_S = 60.0


@dataclass(slots=True, eq=False)
class Job:
    at: float
    hold_s: float  # that it takes of a slot
    taken_at: float | None = None  # by the replica that ends it
    ended_at: float | None = None


@dataclass(slots=True)
class Incarnation:
    replica: str
    name: str
    slots: int
    alive: bool = True  # its lease holds
    drain: bool = False  # it was ordered to
    phase: Phase = "ready"
    jobs: dict[Job, float] = field(default_factory=dict)  # with when they end

    def seen(self, at: float) -> SeenReplica:
        report = ReplicaReport(
            self.replica,
            self.phase,
            at,
            running=len(self.jobs),
            capacity=self.slots,
        )
        return SeenReplica(self.name, self.alive, self.drain, report)


@dataclass(slots=True)
class LaneState:
    lane: Lane
    waiting: deque[Job] = field(default_factory=deque)
    incarnations: dict[str, Incarnation] = field(default_factory=dict)
    arrived: int = 0
    gate: str = ""
    reason: str = ""
    epoch: int = 0
    forgotten_at: float = inf  # when its keys expire

    @property
    def running(self) -> int:
        """Taken by somebody, dead or alive."""
        return sum(len(i.jobs) for i in self.incarnations.values())


class SimLanes:
    """Redis, as one scaler reaches it in the name of `epoch`. The lanes are shared."""

    def __init__(self, shared: "SharedLanes") -> None:
        self._shared = shared
        self.epoch = 0

    def observe(self, lanes: Sequence[Lane]) -> dict[Lane, SeenLane]:
        self._shared.check()
        return {lane: self._seen(self._shared.lane(lane)) for lane in lanes}

    def _seen(self, state: LaneState) -> SeenLane:
        at = self._shared.time()
        return SeenLane(
            lane=state.lane,
            at=at,
            waiting=len(state.waiting),
            running=state.running,
            oldest_wait_s=at - state.waiting[0].at if state.waiting else 0.0,
            replicas=[i.seen(at) for i in state.incarnations.values()],
            arrived=state.arrived,
            gate=state.gate,
            gate_reason=state.reason,
        )

    def fence(self, lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            self._fenced(lane)

    def _fenced(self, lane: Lane) -> LaneState:
        self._shared.check()
        state = self._shared.lane(lane)
        if self._shared.fencing and state.epoch > self.epoch:
            raise Deposed(self.epoch)
        state.epoch = max(state.epoch, self.epoch)
        return state

    def order(self, lane: Lane, incarnation: str, *, drain: bool) -> bool:
        found = self._fenced(lane).incarnations.get(incarnation)
        if found is None or not found.alive:
            return False
        found.drain = drain
        self._shared.heard(lane)
        return True

    def close_idle(self, lane: Lane) -> bool:
        state = self._fenced(lane)
        work = len(state.waiting) + state.running
        if self._shared.idle_gate and work:
            return False
        if state.gate != "shut":
            state.gate = "idle"
        self._shared.closed(lane, work)
        return True

    def open(self, lane: Lane) -> None:
        state = self._fenced(lane)
        if state.gate == "shut":
            state.gate, state.reason = "open", ""
            state.forgotten_at = inf

    def shut(self, lane: Lane, reason: str) -> None:
        state = self._fenced(lane)
        state.gate, state.reason = "shut", reason

    def answer_stranded(self, lane: Lane, code: str, error: str) -> int:
        state = self._fenced(lane)
        stranded = list(state.waiting)
        for each in state.incarnations.values():
            if not each.alive:
                stranded += each.jobs
                each.jobs.clear()
        for job in stranded:
            job.ended_at = self._shared.time()
        state.waiting.clear()
        if stranded:
            self._shared.answered(lane, code, len(stranded))
        return len(stranded)

    def forget_replica(self, lane: Lane, incarnation: str) -> None:
        self._shared.check()
        state = self._shared.lane(lane)
        found = state.incarnations.get(incarnation)
        if found is not None and not found.alive and not found.jobs:
            del state.incarnations[incarnation]

    def forget_lane(self, lane: Lane) -> None:
        state = self._fenced(lane)
        state.forgotten_at = min(state.forgotten_at, self._shared.time() + FORGOTTEN_AFTER_S)


class SharedLanes:
    """The lanes themselves. `heard` is called with a lane whose replicas have news to obey, `wake`
    where the scaler is to look."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.heard: Callable[[Lane], None] = lambda lane: None
        self.wake: Callable[[Lane], None] = lambda lane: None
        self.closed: Callable[[Lane, int], None] = lambda lane, work: None
        self.answered: Callable[[Lane, str, int], None] = lambda lane, code, jobs: None
        self.skew_s = 0.0  # of Redis' clock
        self.away = False
        self.fencing = True  # tests break these two
        self.idle_gate = True
        self.states: dict[Lane, LaneState] = {}

    def time(self) -> float:
        return self._clock() + self.skew_s

    def check(self) -> None:
        if self.away:
            raise redis.ConnectionError("Redis is away")

    def enqueue(self, lane: Lane, job: Job) -> bool:
        """False: the gate is shut. Raises when Redis is away."""
        self.check()
        state = self.lane(lane)
        if state.gate == "shut":
            return False
        state.waiting.append(job)
        state.forgotten_at = inf
        state.arrived += 1
        if state.gate != "open":
            state.gate = "open"
            self.wake(lane)
        self.heard(lane)
        return True

    def lane(self, lane: Lane) -> LaneState:
        found = self.states.get(lane)
        if found is None or self.time() >= found.forgotten_at:
            found = self.states[lane] = LaneState(lane)
        return found
