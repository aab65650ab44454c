"""Scoring of an evaluation whose batch has ended: once, by a program (`scoring.py`)."""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, update
from sqlmodel import Session, col

from loraplex.batch_status import UNDER_WAY
from loraplex.compare_and_set import changed
from loraplex.entities import Batch, Evaluation, StoredFile
from loraplex.store.files import FileStore, blocks_of

log = logging.getLogger(__name__)

_MOST_CPU_S = 600


class EvaluationLost(Exception):
    """The text is for who asked for it."""


def score(database: Engine, files: FileStore, evaluation_id: str) -> None:
    """Safe to run twice: the first that ends counts."""
    with Session(database, expire_on_commit=False) as session:
        row = session.get(Evaluation, evaluation_id)
        batch = session.get(Batch, row.batch_id) if row else None
    if row is None or batch is None or row.scores or row.error or batch.status in UNDER_WAY:
        return
    try:
        with tempfile.TemporaryDirectory() as scratch:
            means, out = _scored(files, row, batch, Path(scratch))
            with out.open("rb") as content:
                file = _file_of(row)
                file.bytes = files.put(file.id, blocks_of(content))
    except EvaluationLost as lost:
        log.warning("%s: %s", row.id, lost)
        _write(database, row.id, None, error=str(lost))
    else:
        _write(database, row.id, file, scores=means, results_file_id=file.id)


def _scored(
    files: FileStore, row: Evaluation, batch: Batch, scratch: Path
) -> tuple[dict[str, Any], Path]:
    answers = [files.path(name) for name in (batch.output_file_id, batch.error_file_id) if name]
    questions = files.path(batch.input_file_id)
    if not answers:
        raise EvaluationLost(f"Its batch, {batch.id}, is {batch.status} without an answer.")
    if not all(path.exists() for path in (*answers, questions)):
        raise EvaluationLost("The files of its batch were deleted.")
    job, out = scratch / "job.json", scratch / "scored.jsonl"
    facts = row.model_dump(include={"variants", "metrics", "json_schema"})
    facts |= {"most_cpu_s": _MOST_CPU_S}
    facts |= {"questions": str(questions), "answers": [str(path) for path in answers]}
    job.write_text(json.dumps(facts))
    command = [sys.executable, "-m", "scheduler.scoring", str(job), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        log.warning("%s: %s", row.id, done.stderr[-2000:])
        raise EvaluationLost(
            f"Its answers could not be scored within {_MOST_CPU_S} s and the memory that one has: "
            "ask fewer rows, for shorter answers, or with a simpler schema."
        )
    means: dict[str, Any] = json.loads(done.stdout)
    return means, out


def _file_of(row: Evaluation) -> StoredFile:
    """The same whoever makes it."""
    return StoredFile(
        id=f"file-{row.id.removeprefix('eval-')}",
        tenant_id=row.tenant_id,
        filename=f"{row.id}.jsonl",
        purpose="eval_output",
        bytes=0,
    )


def _write(database: Engine, evaluation_id: str, file: StoredFile | None, **values: Any) -> None:
    """If nobody was faster."""
    mine = update(Evaluation).where(
        col(Evaluation.id) == evaluation_id,
        col(Evaluation.results_file_id).is_(None),
        col(Evaluation.error) == "",
    )
    with Session(database) as session:
        if changed(session, mine.values(**values)) and file is not None:
            session.merge(file)
        session.commit()
