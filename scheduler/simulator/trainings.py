"""Fine-tuning jobs in virtual time: they load, learn, write a checkpoint when they are asked to,
die. Rows are those of `TrainingJob`; what was learned since the last checkpoint is lost with a
worker."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from loraplex.entities.work import UNFINISHED, WorkState
from scheduler.placement import Place
from scheduler.simulator.loop import Loop
from scheduler.trainings import SILENT_S, TrainingFacts

LOADS_S, CHECKPOINT_EACH_S, LONGEST_YIELD_S = 8.0, 30.0, 5.0
_LOOK_S = 0.5


@dataclass(slots=True)
class TrainingRow:
    id: str
    needs_s: float  # of learning
    tenant: str = "a"
    state: WorkState = WorkState.QUEUED
    place: Place | None = None
    created_at: float = 0.0
    placed_at: float | None = None
    sign_at: float = 0.0
    yielding: bool = False
    runner: int = 0
    learned_s: float = 0.0  # as its last checkpoint has it
    yields: int = 0
    ended_at: float | None = None


@dataclass(slots=True)
class Running:
    row: TrainingRow
    me: int
    place: Place
    learned_s: float
    loads_until: float
    kept_at: float
    leaves_at: float | None = None


@dataclass(slots=True)
class SimTrainings:
    loop: Loop
    time: Callable[[], float]  # the database's
    random: random.Random
    crowded: Callable[[Place], None] = lambda place: None  # it begins there
    rows: dict[str, TrainingRow] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    runs: int = 0

    def add(self, row: TrainingRow) -> None:
        row.created_at = row.sign_at = self.time()
        self.rows[row.id] = row

    def facts(self) -> list[TrainingFacts]:
        return [
            TrainingFacts(
                *(r.id, r.tenant, r.state, r.place),
                *(r.created_at, r.placed_at, r.sign_at, r.yielding),
            )
            for r in self.rows.values()
            if r.place or r.state in UNFINISHED
        ]

    # What the scaler writes, as `scheduler/rows.py` does.

    def place(self, job: str, host: str, slot: int) -> bool:
        row, place = self.rows[job], Place(host, slot)
        if row.state != WorkState.QUEUED or row.place not in (None, place):
            return False
        row.place, row.placed_at, row.sign_at = place, self.time(), self.time()
        return True

    def tell_to_yield(self, job: str) -> None:
        row = self.rows[job]
        row.yielding = row.yielding or row.state == WorkState.RUNNING

    def free(self, job: str) -> None:
        row = self.rows[job]
        silent = row.sign_at < self.time() - SILENT_S
        if row.state != WorkState.QUEUED and not silent:
            return
        row.place, row.yielding = None, False
        if row.state == WorkState.RUNNING:
            row.state, row.runner = WorkState.QUEUED, 0

    # The task, as `scheduler/training_run.py` does it.

    def begin(self, job: str) -> None:
        row = self.rows[job]
        if row.state != WorkState.QUEUED or row.place is None:
            return
        self.runs += 1
        self.crowded(row.place)
        row.state, row.runner, row.sign_at = WorkState.RUNNING, self.runs, self.time()
        now = self.loop.now
        run = Running(row, self.runs, row.place, row.learned_s, now + LOADS_S, now)
        self.running[self.runs] = run
        self.loop.after(_LOOK_S, lambda: self._go_on(run))

    def kill(self) -> None:
        """A worker, and its program."""
        if self.running:
            del self.running[self.random.choice(sorted(self.running))]

    def _go_on(self, run: Running) -> None:
        row, now = run.row, self.loop.now
        if run.me not in self.running:
            return
        if row.runner != run.me or row.state != WorkState.RUNNING:  # it is another one's
            self._leave(run)
            return
        row.sign_at = self.time()
        if now >= run.loads_until:
            run.learned_s += _LOOK_S
        if now - run.kept_at > CHECKPOINT_EACH_S:
            run.kept_at, row.learned_s = now, run.learned_s
        if run.learned_s >= row.needs_s:
            row.state, row.ended_at = WorkState.SUCCEEDED, now
            self._leave(run)
        elif row.yielding and run.leaves_at is None:
            run.leaves_at = now + self.random.uniform(_LOOK_S, LONGEST_YIELD_S)
        if run.leaves_at is not None and now >= run.leaves_at:
            row.state, row.learned_s, row.yields = WorkState.QUEUED, run.learned_s, row.yields + 1
            self._leave(run)
        self.loop.after(_LOOK_S, lambda: self._go_on(run))

    def _leave(self, run: Running) -> None:
        del self.running[run.me]
        if run.row.runner == run.me:
            run.row.place, run.row.yielding, run.row.runner = None, False, 0
