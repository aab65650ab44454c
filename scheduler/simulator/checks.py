"""What must hold in every run, whatever breaks: looked at each virtual second, and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraplex.entities.work import WorkState
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from loraplex.status import ADMITTING, Status
from scheduler.drivers.base import ReplicaSpec
from scheduler.placement import Place
from scheduler.simulator.rows import DeploymentRow, ReplicaRow

if TYPE_CHECKING:
    from scheduler.simulator.scenario import Scenario

EVERY_S = 1.0
_NO_REPLICA = (Status.STOPPED, Status.DELETED, Status.STANDBY, Status.ERRORED)
AWAKE_WITHIN_S = 25.0  # a leader's lease, its settling time and a tick, twice over
MAKES_ROOM_S = 60.0  # a replica that has made room for its successor is replaced by then
CALM_AFTER_S = 300.0  # of quiet: whatever a fault has done is over


class Checks:
    def __init__(self, scenario: Scenario) -> None:
        self._run = scenario
        self.problems: list[str] = []
        self._asleep_since: dict[str, float] = {}
        self._full_at = -MAKES_ROOM_S
        self._had_min: dict[str, int] = {}  # min_replicas that were ready when last looked at

    def watch(self) -> None:
        from scheduler.simulator.scenario import QUIET_S, TRAFFIC_S

        if self._run.loop.now < TRAFFIC_S + QUIET_S:
            self._run.loop.after(EVERY_S, self.watch)
        for row in self._run.tables.deployments.values():
            self._awake(row)
            self._holds_min(row)
            if self._run.loop.now > TRAFFIC_S + CALM_AFTER_S:
                self._calm(row)

    def closed(self, lane: Lane, work: int) -> None:
        """A gate that closes for zero replicas has nothing behind it."""
        if work:
            row = self._run.tables.deployments[lane.deployment_id]
            self._problem("closed over work", row, f"{work} jobs")

    def answered(self, lane: Lane, code: str, jobs: int) -> None:
        """Only who takes no requests any more, or can't start, answers with an error."""
        row = self._run.tables.deployments[lane.deployment_id]
        if row.status in ADMITTING and not {"starts_fail", "starts_hang"} & {*self._run.faults}:
            self._problem("lost job", row, f"{jobs} were answered {code}")

    def crowded(self, spec: ReplicaSpec, other: str) -> None:
        """A place holds one process."""
        name = Lane.parse(spec.lane).deployment_id
        row = self._run.tables.deployments[name]
        self._problem("double start", row, f"{spec.id} at the place of {other}")

    def training_begins(self, place: Place) -> None:
        """So it does for a training, and no more of them run than may."""
        run = self._run
        for process in run.replicas.driver.list():
            row = run.tables.replicas[process.replica]
            if process.alive and Place(row.host, row.slot) == place:
                self.problems.append(f"crowded: a training at the place of {row.id}")
        others = [each.place for each in run.trainings.running.values()]
        if place in others or len(others) >= run.rules.trainings.most:
            self.problems.append(f"crowded: {len(others)} other trainings, at {others}, {place}")

    def _problem(self, kind: str, row: DeploymentRow, what: str) -> None:
        text = f"{kind}: {row.id} ({row.status}) at {self._run.loop.now:.0f} s: {what}"
        if len(self.problems) < 20 and not any(
            p.startswith(f"{kind}: {row.id} ") for p in self.problems
        ):
            self.problems.append(text)

    def _awake(self, row: DeploymentRow) -> None:
        """A lane with work has a replica, or one that starts, or a reason not to."""
        run = self._run
        state = run.shared.lane(row.lane)
        living = run.tables.living.get(row.id, {})
        excused = (
            row.status not in ADMITTING
            or row.status == Status.PENDING
            or run.shared.away
            or (row.retry_at is not None and run.shared.time() < row.retry_at)
            or not any(not s.dead and s.frozen_until < run.loop.now for s in run.scalers)
            or any(s.driver_away for s in run.scalers)  # nothing could be started
            or self._fleet_is_full()
        )
        if excused or living or not (state.waiting or state.running):
            self._asleep_since.pop(row.id, None)
            return
        since = self._asleep_since.setdefault(row.id, run.loop.now)
        if run.loop.now - since > AWAKE_WITHIN_S:
            self._problem("lost wake-up", row, f"{len(state.waiting)} jobs and no replica")

    def _holds_min(self, row: DeploymentRow) -> None:
        """With traffic, and while a change is rolled out: who has min_replicas ready keeps them,
        but for a fault, or a fleet that has no room for old and new."""
        living = self._run.tables.living.get(row.id, {}).values()
        ready = sum(r.state == ReplicaState.READY for r in living)
        low, had = row.scaling.min_replicas, self._had_min.get(row.id, 0)
        served = row.status in (Status.READY, Status.UPDATING)
        now = self._run.loop.now
        if self._fleet_is_full():
            self._full_at = now
        no_room = now - self._full_at < MAKES_ROOM_S
        disturbed = now < self._run.disturbed_until or no_room
        if served and not disturbed and low <= had and ready < low:
            self._problem("below min", row, f"{ready} of {low} serve, there were {had}")
        self._had_min[row.id] = low if served and ready >= low else 0

    def _living(self) -> list[ReplicaRow]:
        return [row for rows in self._run.tables.living.values() for row in rows.values()]

    def _fleet_is_full(self) -> bool:
        return len(self._living()) >= self._run.rules.fleet.size

    def intended(self, row: DeploymentRow) -> None:
        """With each replica that is meant: no more than the law may want, and a rollout's; those
        that serve a former lane to its end don't count."""
        lanes = (row.lane, row.lanes.get(row.target, row.lane))
        living = [
            r
            for r in self._run.tables.living.get(row.id, {}).values()
            if row.lanes.get(r.revision, row.lane) in lanes
        ]
        meant = sum(r.state != ReplicaState.DRAINING for r in living)
        most = max(row.scaling.max_replicas, row.scaling.min_replicas)
        if any(r.revision != row.target for r in living):
            most *= 2
        if meant > most:
            self._problem("double start", row, f"{meant} replicas of at most {most}")

    def _calm(self, row: DeploymentRow) -> None:
        """Long after the last fault."""
        living = self._run.tables.living.get(row.id, {})
        ready = sum(r.state == ReplicaState.READY for r in living.values())
        room = self._run.rules.fleet.size >= sum(
            d.scaling.min_replicas
            for d in self._run.tables.deployments.values()
            if d.status in ADMITTING
        )
        if row.status in ADMITTING and room and ready < row.scaling.min_replicas:
            self._problem("below min", row, f"{ready} of {row.scaling.min_replicas} serve")
        if row.status in (Status.PENDING, Status.INITIALIZING, Status.UPDATING):
            self._problem("stuck", row, f"{row.reason!r}")

    def at_end(self) -> None:
        run = self._run
        for row in run.tables.deployments.values():
            living = run.tables.living.get(row.id, {})
            if row.status in _NO_REPLICA and living:
                self._problem("stuck", row, f"has {sorted(living)}")
            if row.status == Status.READY and not living:
                self._problem("stuck", row, "ready without a replica")
            if any(r.state == ReplicaState.DRAINING for r in living.values()):
                self._problem("stuck", row, "a replica drains for ever")
            if row.target != row.revision and row.status in ADMITTING:
                self._problem("stuck", row, f"revision {row.revision}, target {row.target}")
        known = {name for rows in run.tables.living.values() for name in rows}
        for process in run.replicas.driver.list():
            if process.replica not in known:
                self.problems.append(f"orphan: {process.replica}")
        free = run.rules.fleet.free({Place(r.host, r.slot) for r in self._living()})
        room = any(place.host == run.rules.trainings.host for place in free)
        for training in run.trainings.rows.values():
            if training.state != WorkState.SUCCEEDED and room:
                self.problems.append(f"stuck: training {training}")
        for job in run.jobs:
            if job.ended_at is None:
                self.problems.append(f"lost job: came at {job.at:.1f} s, taken {job.taken_at}")
                break
