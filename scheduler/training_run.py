"""One run of a fine-tuning job: a program of its own (`gpu_worker.training`) that is watched here.

The row tells whose it is and what came of it. A run that dies, or yields, is followed by another,
which goes on from the last checkpoint: those lie in the job's folder until its end.
"""

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Engine, func
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col

from loraplex import datasets
from loraplex.entities import (
    NO_PLACE,
    StoredFile,
    TrainingEvent,
    TrainingJob,
    WorkState,
    utc_now,
)
from loraplex.registry import RegistrationRefused
from loraplex.settings import ScalerSettings
from loraplex.store.files import FileStore
from loraplex.store.models import ModelBusy, ModelUnavailable, Stopped
from scheduler.base_models import store_with_room
from scheduler.claim import Claim
from scheduler.training_reports import TrainingReports
from scheduler.training_versions import TrainedVersions

log = logging.getLogger(__name__)

LOOK_EACH_S = 0.5
MOST_ATTEMPTS = 3  # without a step: whatever it is, it won't go away
_YIELDED = 75
_FILES = {"training": "train.jsonl", "validation": "validation.jsonl"}


class TrainingFailed(Exception):
    """The text is for who asked for it."""


class TrainingRun:
    def __init__(
        self,
        database: Engine,
        settings: ScalerSettings,
        job_id: str,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stopping`: its worker is to end."""
        self._stopping = stopping
        self._database = database
        self._settings = settings
        self._id = job_id
        self._folder = settings.training_dir / job_id
        self._models = store_with_room(database, settings)
        self._versions = TrainedVersions(database, settings, self._models)
        self._reports = TrainingReports(database, job_id, self._folder, self._keep)
        self._claim = Claim(database, TrainingJob, job_id, self._folder)

    def begin(self) -> bool:
        """Where it has a place, and nobody runs it."""
        started = func.coalesce(col(TrainingJob.started_at), utc_now())
        return self._claim.take_if(col(TrainingJob.host) != "", started_at=started)

    def carry_out(self) -> None:
        """To its end, until it yields, or as long as it stays its own."""
        try:
            with self._claim.held() as held:
                if held:
                    self._carry_out()
                else:
                    log.info("%s is still held by another run", self._id)
        finally:
            self._claim.leave(**NO_PLACE)

    def _carry_out(self) -> None:
        job = self._claim.row()
        try:
            if job.attempts > MOST_ATTEMPTS:
                raise TrainingFailed(
                    f"{MOST_ATTEMPTS} runs died before their next checkpoint. {self._tail()}"
                )
            status = self._train(job)
            if status is None:  # cancelled, or another one's
                if self._claim.row().state == WorkState.CANCELLED:
                    shutil.rmtree(self._folder, ignore_errors=True)
                return
            if status == _YIELDED:
                self._reports.tell("It gave its place away, and goes on when there is one again.")
                self._wait_again(attempts=0)
                return
            if status < 0:
                self._reports.tell(
                    f"Its program was killed (signal {-status}); is there memory enough?"
                )
                self._wait_again()
                return
            if status != 0:
                raise TrainingFailed(self._tail())
            ref = self._versions.register(self._claim.row(), self._folder / "adapter").ref
        except Stopped:
            self._wait_again(attempts=0)
        except ModelBusy:  # another task fetches its base model
            self._wait_again(attempts=0)
        except SQLAlchemyError:  # another run goes on from the last checkpoint
            raise
        except (TrainingFailed, RegistrationRefused, ModelUnavailable) as failed:
            self._end(WorkState.FAILED, error=str(failed))
        except Exception as failed:  # whatever it is, who asked for it must read it
            log.exception("%s failed", self._id)
            self._end(WorkState.FAILED, error=f"{type(failed).__name__}: {failed}")
        else:
            self._end(WorkState.SUCCEEDED, adapter=ref)

    def _wait_again(self, **values: Any) -> None:
        self._claim.write(state=WorkState.QUEUED.value, runner="", **NO_PLACE, **values)

    def _end(self, state: WorkState, **values: Any) -> None:
        what = values.get("error") or f"{values['adapter']} can be used."
        level = "error" if state is WorkState.FAILED else "info"
        last = TrainingEvent(job_id=self._id, message=what, level=level)
        if self._claim.write(last, state=state.value, finished_at=utc_now(), **NO_PLACE, **values):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _train(self, job: TrainingJob) -> int | None:
        """The program's exit status. None: it is not wanted here any more."""
        if not (self._folder / "config.json").exists():
            self._prepare(job)
        (self._folder / "yield").unlink(missing_ok=True)
        if missed := self._reports.catch_up():
            self._claim.write(**missed)
        with (self._folder / "log").open("ab") as output:
            program = [sys.executable, "-m", "gpu_worker.training"]
            command = [*program, str(self._folder), str(os.getpid())]
            quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1"}
            place = {"CUDA_VISIBLE_DEVICES": str(job.slot or 0)}  # as a replica's at its place
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | quiet | place
            )
        try:
            asked_at = None
            while process.poll() is None:
                if not self._followed():
                    return None
                if asked_at is None and (self._stopping() or self._claim.row().yielding):
                    asked_at = time.monotonic()
                    (self._folder / "yield").touch()
                if asked_at is not None and self._is_late(asked_at):
                    process.kill()  # it goes on from its last checkpoint
                time.sleep(LOOK_EACH_S)
            mine = self._follow() and self._claim.write()
            left = process.returncode < 0 and asked_at is not None
            return (_YIELDED if left else process.returncode) if mine else None
        finally:
            self._stop(process)

    def _is_late(self, asked_at: float) -> bool:
        """Before its first step there is nothing to keep."""
        return (
            not self._reports.begun or time.monotonic() - asked_at > self._settings.training_yield_s
        )

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Nobody wants it any more, here: what it has kept is enough for who goes on."""
        if process.poll() is None:
            process.kill()
            process.wait()

    def _prepare(self, job: TrainingJob) -> None:
        """Rows as the program reads them, and its settings, last."""
        settings = dict(job.settings)
        base = self._models.fetch(job.base_model, self._while_wanted)
        split, seed = settings.pop("validation_split", 0.0), settings.get("seed", 0)
        as_chat = settings.pop("as_chat", False)
        rows = list(self._rows(job.training_file))
        held_out: list[dict[str, Any]] = []
        if job.validation_file:
            held_out = list(self._rows(job.validation_file))
        elif split:
            random.Random(seed).shuffle(rows)
            count = min(len(rows) - 1, max(1, round(split * len(rows))))
            held_out, rows = rows[:count], rows[count:]
        for kind, given in (("training", rows), ("validation", held_out)):
            if given:
                given = [_as_chat(row) for row in given] if as_chat else given
                text = "".join(json.dumps(row) + "\n" for row in given)
                (self._folder / _FILES[kind]).write_text(text)
        settings |= {"base_model": job.base_model, "base_folder": str(base)}
        if job.parent:
            parent = self._folder / "parent"
            if not self._versions.copy(job.tenant_id, job.parent, parent):
                raise TrainingFailed(f"The adapter {job.parent} is gone.")
            settings["parent"] = str(parent)
        fresh = self._folder / "config.new"
        fresh.write_text(json.dumps(settings))
        fresh.rename(self._folder / "config.json")
        self._reports.tell(f"{len(rows)} rows to learn from, {len(held_out)} to validate with.")

    def _while_wanted(self, doing: str, progress: float | None) -> None:
        """A model takes long to fetch: what is here of it is gone on with."""
        if self._claim.lost or self._stopping() or self._claim.row().yielding:
            raise Stopped

    def _rows(self, file_id: str) -> Iterator[dict[str, Any]]:
        with Session(self._database) as session:
            file = session.get(StoredFile, file_id)
        if file is None:
            raise TrainingFailed(f"The file {file_id} is gone.")
        path = FileStore(self._settings.files_dir).path(file_id)
        for line, row in datasets.read(path, file.filename):
            if isinstance(row, str):
                raise TrainingFailed(f"{file.filename}, line {line}: {row}")
            kind = datasets.kind_of(row)
            yield {name: row[name] for name in kind or ()}

    def _followed(self) -> bool:
        """The same, while it runs: a database that is away for a moment ends no training."""
        try:
            return self._follow()
        except SQLAlchemyError as away:
            log.warning("%s is not followed: %s", self._id, away)
            return not self._claim.lost

    def _follow(self) -> bool:
        """Pass on what it has told. False: it is not wanted here any more."""
        values = self._reports.news()
        told = self._claim.write(**values) if values else not self._claim.lost
        self._reports.passed_on()
        return told

    def _keep(self, facts: dict[str, Any]) -> None:
        """What an epoch has brought; without room for it the training goes on."""
        step = facts["kept"]
        folder = self._folder / "adapters" / str(step)
        if not folder.exists():  # this was told before; what came after it could not be stored
            return
        figures = {name: value for name, value in facts.items() if name not in ("kept", "at")}
        try:
            ref = self._versions.keep(self._claim.row(), folder, step, figures)
        except RegistrationRefused as refused:
            self._reports.tell(f"The adapter of step {step} isn't kept: {refused}", level="warn")
        else:
            self._reports.tell(f"Epoch {round(facts['epoch'])} is kept as {ref}.")
        shutil.rmtree(folder, ignore_errors=True)

    def _tail(self) -> str:
        file = self._folder / "log"
        lines = file.read_text(errors="replace").strip().splitlines() if file.exists() else []
        return lines[-1][:500] if lines else "It ended without a word."


def _as_chat(row: dict[str, Any]) -> dict[str, Any]:
    if "completion" not in row:
        return row
    said = ("user", row["prompt"]), ("assistant", row["completion"])
    return {"messages": [{"role": role, "content": text} for role, text in said]}
