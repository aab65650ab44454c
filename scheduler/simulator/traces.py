"""One law on one trace: what it costs, and how long requests wait. No faults; statuses, reconciler
and performer are the real ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loraplex.keys import Lane
from scheduler.drivers.fake import StartPlan
from scheduler.placement import Fleet
from scheduler.reconcile import Rules
from scheduler.scaling import Law, Scaling
from scheduler.simulator.lanes import Job, SharedLanes
from scheduler.simulator.loop import Loop
from scheduler.simulator.replicas import SimReplicas
from scheduler.simulator.rows import DeploymentRow, Tables
from scheduler.simulator.scalers import Leader, SimScaler
from scheduler.simulator.tasks import SimTasks, TaskFaults
from scheduler.simulator.trainings import SimTrainings, TrainingRow
from scheduler.trainings import TrainingRules

_TAIL = 5000  # jobs that may still run at the end


@dataclass(frozen=True, slots=True)
class Arrival:
    at: float  # seconds since the trace's start
    hold_s: float  # of a slot
    deployment: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    replica_s: float  # with starts, idling and draining
    waits: tuple[float, ...]  # arrival → slot, by arrival
    starts: int

    def wait(self, share: float) -> float:
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def within(self, seconds: float) -> float:
        """Share of requests that waited no longer."""
        return sum(w <= seconds for w in self.waits) / max(1, len(self.waits))


def run(
    law: Law,
    arrivals: Sequence[Arrival],
    seconds: float,
    *,
    scaling: Scaling,
    slots: int,
    cold_start_s: float,
    deployments: int = 1,
    fleet: int = 10_000,
    trainings: Sequence[TrainingRow] = (),
) -> Outcome:
    """`arrivals` in order of time. It ends, and replicas count, until the last job has ended.
    `trainings`: from the beginning, on what replicas leave over; they tell what became of them."""
    loop = Loop()
    shared = SharedLanes(lambda: loop.now)
    random_ = random.Random(0)
    tables = Tables(shared.time, SimTrainings(loop, shared.time, random_))
    for training in trainings:
        tables.trainings.add(training)
    rows = [DeploymentRow(f"dep-{i}", "m", scaling, models={1: "m"}) for i in range(deployments)]
    tables.deployments = {row.id: row for row in rows}
    replicas = SimReplicas(loop, shared, lambda spec: StartPlan(cold_start_s), slots)
    tasks = SimTasks(loop, tables, replicas, random_, TaskFaults(slowest_s=0.0))
    rules = Rules(
        Fleet({"local": fleet}),
        law=law,
        slots=slots,
        cold_start_s=cold_start_s,
        trainings=TrainingRules(most=fleet),
    )
    scaler = SimScaler("one", loop, Leader(), shared, tables, replicas, tasks, rules, random_)
    shared.wake = lambda lane: scaler.wake()
    shared.heard = lambda lane: replicas.take(lane)
    jobs = [Job(each.at, each.hold_s) for each in arrivals]
    lanes = [row.lane for row in rows]
    _feed(loop, shared, [(lanes[a.deployment], j) for a, j in zip(arrivals, jobs, strict=True)])
    loop.run(seconds)
    while any(job.ended_at is None for job in jobs[-_TAIL:]):
        loop.run(loop.now + 1.0)
    for born in replicas.usage.born.values():
        replicas.usage.replica_s += loop.now - born
    waits = [j.taken_at - j.at for j in jobs if j.taken_at is not None]
    return Outcome(replicas.usage.replica_s, tuple(waits), replicas.usage.starts)


def _feed(loop: Loop, shared: SharedLanes, jobs: Sequence[tuple[Lane, Job]]) -> None:
    """One event at a time, so that the heap stays small."""

    def arrive(index: int) -> None:
        lane, job = jobs[index]
        shared.enqueue(lane, job)
        if index + 1 < len(jobs):
            loop.at(jobs[index + 1][1].at, lambda: arrive(index + 1))

    if jobs:
        loop.at(jobs[0][1].at, lambda: arrive(0))
