"""One seeded run with faults: traffic, users' words, and everything that breaks; then a quiet time
in which all must come right. `checks.py` judges it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf

import redis

from loraplex.keys import Lane
from loraplex.status import Event, Status
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.fake import HANGS, StartPlan
from scheduler.judge import Limits
from scheduler.placement import Fleet
from scheduler.reconcile import Rules
from scheduler.scaling import Scaling
from scheduler.simulator.checks import Checks
from scheduler.simulator.lanes import Job, SharedLanes
from scheduler.simulator.loop import Loop
from scheduler.simulator.replicas import SimReplicas
from scheduler.simulator.rows import DeploymentRow, Tables
from scheduler.simulator.scalers import Leader, SimScaler
from scheduler.simulator.tasks import SimTasks, TaskFaults
from scheduler.simulator.trainings import SimTrainings, TrainingRow
from scheduler.trainings import TrainingRules

TRAFFIC_S = 400.0
QUIET_S = 500.0  # longer than the longest back-off, drain and start timeouts together
SLOTS = 4
SLOWEST_LOOK_S = 0.2
LONGEST_FAULT_S = 150.0  # with its consequences: a start that hangs is given up after 60 s
COLD_START_S = 8.0
LIMITS = Limits(start_s=60.0, drain_s=120.0)
_MODELS = ("m1", "m2", "m3")
FAULTS = (
    "scaler_crash",
    "scaler_freeze",
    "replica_dies",
    "replica_freezes",
    "redis_pause",
    "starts_fail",
    "starts_hang",
    "driver_away",
    "clock_jumps",
    "tasks_lost",
    "fetches_fail",
)


@dataclass(slots=True)
class Breakage:
    """Parts that a test breaks on purpose, to see the checks fail."""

    rules: Callable[[Rules], Rules] = lambda rules: rules
    fencing: bool = True
    lease: bool = True
    idle_gate: bool = True
    unique_names: bool = False  # instead of deterministic ones
    slowest_look_s: float = SLOWEST_LOOK_S


@dataclass(slots=True)
class Verdict:
    seed: int
    problems: list[str] = field(default_factory=list)
    jobs: int = 0
    faults: list[str] = field(default_factory=list)
    starts: int = 0


class Scenario:
    def __init__(self, seed: int, breakage: Breakage | None = None) -> None:
        broken = breakage or Breakage()
        self.seed = seed
        self._slowest_look_s = broken.slowest_look_s
        self.random = random.Random(seed)
        self.loop = Loop()
        self.shared = SharedLanes(lambda: self.loop.now)
        self.shared.fencing = broken.fencing
        self.shared.idle_gate = broken.idle_gate
        self.trainings = SimTrainings(self.loop, self.shared.time, random.Random(seed))
        self.tables = Tables(
            *(self.shared.time, self.trainings),
            fencing=broken.fencing,
            unique_names=broken.unique_names,
        )
        self.replicas = SimReplicas(self.loop, self.shared, self._start_plan, SLOTS)
        self.task_faults = TaskFaults(slowest_s=0.3, longest_end_s=3.0)
        self.task_faults.longest_fetch_s = self.random.choice((0.5, 5.0, 60.0))
        self.tasks = SimTasks(self.loop, self.tables, self.replicas, self.random, self.task_faults)
        self.leader = Leader(leased=broken.lease)
        # Room for what users may guarantee, and one more: nobody may starve.
        count = self.random.randint(1, 4)
        size = 2 * count + self.random.choice((1, 3, 50))
        self.rules = broken.rules(
            Rules(
                *(Fleet({"a": size // 2, "b": size - size // 2}), LIMITS),
                slots=SLOTS,
                trainings=TrainingRules("a", 2),
            )
        )
        self.scalers: list[SimScaler] = []
        self.start_fault: tuple[str, float] = ("", 0.0)  # kind, until
        self.revisions = 1  # the newest one of any deployment
        self.jobs: list[Job] = []
        self.refused = 0
        self.faults: list[str] = []
        self.disturbed_until = 0.0  # what a fault does is over by then
        self._deploy(count)
        self.checks = Checks(self)
        self.shared.heard = self.replicas.take
        self.shared.closed = self.checks.closed
        self.shared.answered = self.checks.answered
        self.replicas.crowded = self.checks.crowded
        self.trainings.crowded = self.checks.training_begins
        self.tables.intended = self.checks.intended
        self.shared.wake = lambda lane: self._wake()
        for _ in range(2):
            self._spawn_scaler()

    def run(self) -> Verdict:
        self._plan_traffic()
        self._plan_users()
        self._plan_trainings()
        self._plan_faults()
        self.checks.watch()
        self.loop.run(TRAFFIC_S + QUIET_S)
        self.checks.at_end()
        return Verdict(
            *(self.seed, self.checks.problems, len(self.jobs), self.faults),
            self.replicas.usage.starts,
        )

    # Parts

    def _deploy(self, count: int) -> None:
        for number in range(count):
            low = self.random.choice((0, 0, 0, 1, 2))
            scaling = Scaling(
                min_replicas=low,
                max_replicas=max(1, low, self.random.randint(1, 4)),
                cooldown_s=self.random.choice((5.0, 30.0, 120.0)),
                threshold=SLOTS,
            )
            row = DeploymentRow(f"dep-{number}", "m1", scaling, self.random.randint(0, 2))
            row.models = {1: "m1"}
            row.status, row.prepared = Status.PENDING, 0
            self.tables.deployments[row.id] = row

    def _spawn_scaler(self) -> None:
        scaler = SimScaler(
            f"scaler-{len(self.scalers)}",
            *(self.loop, self.leader, self.shared, self.tables, self.replicas, self.tasks),
            *(self.rules, self.random),
            slowest_look_s=self._slowest_look_s,
        )
        self.scalers.append(scaler)

    def _wake(self) -> None:
        if self.random.random() < 0.9:  # a hint may be lost
            for scaler in self.scalers:
                scaler.wake()

    def _start_plan(self, spec: ReplicaSpec) -> StartPlan:
        kind, until = self.start_fault
        if self.loop.now < until and self.random.random() < 0.7:
            if kind == "starts_fail":
                return StartPlan(inf, self.random.uniform(0.5, 6.0), "it was told to fail")
            return HANGS
        return StartPlan(ready_after_s=COLD_START_S * self.random.uniform(0.8, 1.5))

    # What happens

    def _plan_traffic(self) -> None:
        """Bursts and pauses, each deployment its own."""
        for row in self.tables.deployments.values():
            at = self.random.uniform(0.0, 60.0)
            while at < TRAFFIC_S:
                for _ in range(self.random.choice((1, 1, 3, 10, 40))):
                    at += self.random.expovariate(4.0)
                    self._arrive_at(at, row)
                at += self.random.expovariate(1 / self.random.choice((5.0, 30.0, 90.0)))

    def _arrive_at(self, at: float, row: DeploymentRow) -> None:
        """As the API does it: see where the deployment serves, tokenize, enqueue; where that lane
        was shut meanwhile, look again."""
        job = Job(at, self.random.lognormvariate(0.5, 0.8))
        tokenize_s = self.random.choice((0.0, 0.01, 0.3))

        def look(tries: int) -> None:
            lane = row.lane
            self.loop.after(tokenize_s, lambda: arrive(lane, tries))

        def arrive(lane: Lane, tries: int) -> None:
            try:
                accepted = self.shared.enqueue(lane, job)
            except redis.ConnectionError:
                accepted, tries = False, 0
            if accepted:
                self.jobs.append(job)
            elif tries and row.lane != lane:
                look(tries - 1)
            else:
                self.refused += 1

        self.loop.at(at, lambda: look(3))

    def _plan_trainings(self) -> None:
        """With workers that die; by a generator of their own, so that the rest is as it was."""
        draw = self.trainings.random
        for number in range(draw.randint(0, 4)):
            row = TrainingRow(f"ft-{number}", draw.uniform(20.0, 120.0), draw.choice("ab"))
            self.loop.at(draw.uniform(0.0, TRAFFIC_S), partial(self.trainings.add, row))
        for _ in range(draw.randint(0, 3)):
            self.loop.at(draw.uniform(0.0, TRAFFIC_S), self.trainings.kill)

    def _plan_users(self) -> None:
        for row in self.tables.deployments.values():
            for _ in range(self.random.randint(0, 3)):
                word = self.random.choice(("stop", "scale", "change", "change", "model", "delete"))
                if word == "delete" and self.random.random() < 0.7:
                    continue
                at = self.random.uniform(20.0, TRAFFIC_S)
                self.loop.at(at, self._say(row, word))
                if word == "stop":
                    self.loop.at(at + self.random.uniform(5.0, 60.0), self._say(row, "start"))
            # In the end the user tries again whatever has failed.
            self.loop.at(TRAFFIC_S + 60.0, self._say(row, "start"))

    def _say(self, row: DeploymentRow, word: str) -> Callable[[], None]:
        """As the API does it: the row, the table, the gate."""

        def say() -> None:
            if row.status == Status.DELETED:
                return
            if word == "scale":
                low = self.random.choice((0, 1, 2))
                row.scaling = replace(
                    row.scaling,
                    min_replicas=low,
                    max_replicas=max(1, low, row.scaling.max_replicas),
                )
            elif word in ("change", "model"):
                model = row.models[row.target]
                if word == "model":  # at times one that served before
                    model = self.random.choice([m for m in _MODELS if m != model])
                self.revisions += 1
                row.models[self.revisions] = model
                row.target = self.revisions
                row.failed_starts, row.retry_at = 0, None
                self.tables.move(row, Event.CHANGE_ROLLOUT, word)
            else:
                event = {"stop": Event.STOP, "start": Event.START, "delete": Event.DELETE}[word]
                if self.tables.move(row, event, word) and word == "start":
                    row.failed_starts, row.retry_at = 0, None
                    self._set_gate(row, "open")
                elif word != "start":
                    self._set_gate(row, "shut")

        return say

    def _set_gate(self, row: DeploymentRow, gate: str) -> None:
        if self.shared.away:
            return  # the scaler does it later
        state = self.shared.lane(row.lane)
        if gate == "shut" or state.gate == "shut":
            state.gate = gate
        self._wake()

    def _plan_faults(self) -> None:
        for _ in range(self.random.randint(2, 10)):
            kind = self.random.choice(FAULTS)
            at = self.random.uniform(5.0, TRAFFIC_S)
            self.faults.append(kind)
            self.loop.at(at, self._fault(kind))

    def _fault(self, kind: str) -> Callable[[], None]:
        def break_it() -> None:
            self.disturbed_until = self.loop.now + LONGEST_FAULT_S
            getattr(self, f"_{kind}")()

        return break_it

    def _scaler_crash(self) -> None:
        alive = [s for s in self.scalers if not s.dead]
        victim = self.random.choice(alive) if alive else None
        if victim is not None:
            victim.crash_after = self.random.randint(0, 5)
            self.loop.after(self.random.uniform(1.0, 15.0), self._replace(victim))

    def _replace(self, victim: SimScaler) -> Callable[[], None]:
        def spawn() -> None:
            victim.dead = True
            self._spawn_scaler()

        return spawn

    def _scaler_freeze(self) -> None:
        alive = [s for s in self.scalers if not s.dead]
        if alive:
            seconds = self.random.uniform(1.0, 25.0)
            self.random.choice(alive).freeze_after = (self.random.randint(0, 2), seconds)

    def _replica_dies(self) -> None:
        if self.replicas.serving:
            self.replicas.kill(self.random.choice(sorted(self.replicas.serving)))

    def _replica_freezes(self) -> None:
        if self.replicas.serving:
            name = self.random.choice(sorted(self.replicas.serving))
            self.replicas.freeze(name, self.random.uniform(1.0, 12.0))

    def _redis_pause(self) -> None:
        if self.shared.away:
            return
        seconds = self.random.uniform(0.5, 15.0)
        self.shared.away = True

        def back() -> None:
            self.shared.away = False
            self.replicas.outage_over(seconds)

        self.loop.after(seconds, back)

    def _starts_fail(self) -> None:
        self.start_fault = ("starts_fail", self.loop.now + self.random.uniform(5.0, 60.0))

    def _starts_hang(self) -> None:
        self.start_fault = ("starts_hang", self.loop.now + self.random.uniform(5.0, 30.0))

    def _driver_away(self) -> None:
        for scaler in self.scalers:
            scaler.driver_away = True

        def back() -> None:
            for scaler in self.scalers:
                scaler.driver_away = False

        self.loop.after(self.random.uniform(1.0, 30.0), back)

    def _clock_jumps(self) -> None:
        self.shared.skew_s += self.random.uniform(-20.0, 20.0)

    def _tasks_lost(self) -> None:
        self.task_faults.lost, self.task_faults.doubled = 0.3, 0.3

        def back() -> None:
            self.task_faults.lost = self.task_faults.doubled = 0.0

        self.loop.after(self.random.uniform(5.0, 40.0), back)

    def _fetches_fail(self) -> None:
        self.task_faults.fetch_fails = 0.7

        def back() -> None:
            self.task_faults.fetch_fails = 0.0

        self.loop.after(self.random.uniform(5.0, 40.0), back)
