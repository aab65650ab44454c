"""What a training's program reports (`metrics.jsonl`), passed on to its job's events: each figure
once, whatever died meanwhile. A run that goes on from a checkpoint comes to the same figures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, col, select

from loraplex.entities import TrainingEvent

Facts = dict[str, Any]
_NAMES = {n: n for n in ("step", "tokens", "loss", "left_s")} | {"eval_loss": "validation_loss"}


class TrainingReports:
    """`keep`: is given what an epoch has brought."""

    def __init__(
        self, database: Engine, job_id: str, folder: Path, keep: Callable[[Facts], None]
    ) -> None:
        self._database = database
        self._job_id = job_id
        self._file = folder / "metrics.jsonl"
        self._keep = keep
        self._read_to = self._next = 0
        self._told: dict[str, int] = {}  # the last step, by what was told of it
        self.begun = False  # the program has loaded what it needs

    def catch_up(self) -> Facts:
        """Pass on what earlier runs' watchers died before: values of the job's row."""
        values: Facts = {}
        with Session(self._database) as session:
            mine = TrainingEvent.job_id == self._job_id, col(TrainingEvent.figures).is_not(None)
            for figures in session.exec(select(TrainingEvent.figures).where(*mine)):
                if figures:
                    last = self._told.get(_kind(figures), 0)
                    self._told[_kind(figures)] = max(last, figures["step"])
        for facts in self._lines():
            if "step" in facts or "kept" in facts:
                self._pass_on(facts, values)
        self.passed_on()
        return values

    def news(self) -> Facts:
        """Pass on what is new: values of the job's row. They are passed on again unless they were
        stored (`passed_on`)."""
        values: Facts = {}
        for facts in self._lines():
            self._pass_on(facts, values)
        return values

    def passed_on(self) -> None:
        self._read_to = self._next

    def tell(self, message: str, figures: Facts | None = None, level: str = "info") -> None:
        with Session(self._database) as session:
            event = TrainingEvent(
                job_id=self._job_id, message=message, figures=figures, level=level
            )
            session.add(event)
            session.commit()

    def _pass_on(self, facts: Facts, values: Facts) -> None:
        if "begun" in facts:
            self.begun = True
            values |= {"step": facts["begun"], "total_steps": facts["total_steps"]}
            self.tell(f"Begins at step {facts['begun']} of {facts['total_steps']}.")
        elif "checkpoint" in facts:
            values["attempts"] = 0
            self.tell(f"Checkpoint at step {facts['checkpoint']}.")
        elif "kept" in facts:
            self._keep(facts)
        else:
            values |= {into: facts[name] for name, into in _NAMES.items() if name in facts}
            values["total_steps"] = facts["total_steps"]
            kind = _kind(facts)
            if facts["step"] > self._told.get(kind, 0):
                self.tell(_sentence(facts), facts)
                self._told[kind] = facts["step"]

    def _lines(self) -> list[Facts]:
        """Whole ones since those that were passed on."""
        if not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(self._read_to)
            raw = file.read()
        self._next = self._read_to + raw.rfind(b"\n") + 1
        found = raw[: self._next - self._read_to].splitlines()
        return [facts for line in found if (facts := _read(line)) is not None]


def _kind(facts: Mapping[str, Any]) -> str:
    return "eval_loss" if "eval_loss" in facts else "loss"


def _read(line: bytes) -> Facts | None:
    """None: it was torn, when the disk was full, say."""
    try:
        facts: Facts = json.loads(line)
    except ValueError:
        return None
    return facts


def _sentence(facts: Facts) -> str:
    of = f"Step {facts['step']} of {facts['total_steps']}"
    if "eval_loss" in facts:
        return f"{of}: validation loss {facts['eval_loss']:.4f}"
    return f"{of}: loss {facts['loss']:.4f}"
