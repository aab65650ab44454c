"""Scoring of an evaluation whose batch has ended: a file with a line for each row, and means."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session

from loraplex.batch_status import UNDER_WAY
from loraplex.entities import Batch, Evaluation, StoredFile
from loraplex.questions import answer_of
from loraplex.store.files import FileStore
from scheduler.scores import Scorer

log = logging.getLogger(__name__)


class EvaluationLost(Exception):
    """The text is for who asked for it."""


def score(database: Engine, files: FileStore, evaluation_id: str) -> None:
    """Safe to run twice: it is the same file."""
    with Session(database, expire_on_commit=False) as session:
        row = session.get(Evaluation, evaluation_id)
        batch = session.get(Batch, row.batch_id) if row else None
    if row is None or batch is None or row.scores or batch.status in UNDER_WAY:
        return
    try:
        scores, file = _scored(files, row, batch)
    except EvaluationLost as lost:
        log.warning("%s: %s", row.id, lost)
        _write(database, row.id, error=str(lost), scores={})
    else:
        with Session(database) as session:
            session.merge(file)
            session.commit()
        _write(database, row.id, scores=scores, results_file_id=file.id)


def _scored(
    files: FileStore, row: Evaluation, batch: Batch
) -> tuple[dict[str, dict[str, float]], StoredFile]:
    answers: dict[str, dict[str, Any]] = {}
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is not None:
            answers |= dict(_answers(files.path(file_id)))
    if not answers:
        raise EvaluationLost(f"Its batch, {batch.id}, is {batch.status} without an answer.")
    scorer = Scorer(row.metrics, row.json_schema)
    sums = {variant: _Sums() for variant in row.variants}

    def blocks() -> Iterator[bytes]:
        for line in _rows(files.path(batch.input_file_id), row.variants, answers):
            for variant, answer in line["answers"].items():
                answer["scores"] = scorer.score(answer.get("text"), line["expected"])
                sums[variant].add(answer)
            yield json.dumps(line).encode() + b"\n"

    name = f"{row.id}.jsonl"
    file_id = f"file-{row.id.removeprefix('eval-')}"
    file = StoredFile(
        id=file_id, tenant_id=row.tenant_id, filename=name, purpose="eval_output", bytes=0
    )
    try:
        file.bytes = files.put(file.id, blocks())
    except FileNotFoundError as gone:
        raise EvaluationLost("The file of its questions was deleted.") from gone
    return {variant: each.means() for variant, each in sums.items()}, file


class _Sums:
    def __init__(self) -> None:
        self._count = self._failed = self._tokens = 0
        self._scores: dict[str, float] = {}

    def add(self, answer: dict[str, Any]) -> None:
        self._count += 1
        self._failed += "text" not in answer
        self._tokens += answer.get("completion_tokens", 0)
        for name, value in answer["scores"].items():
            self._scores[name] = self._scores.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        count = max(1, self._count)
        found = {name: round(value / count, 4) for name, value in self._scores.items()}
        answered = max(1, self._count - self._failed)
        tokens = round(self._tokens / answered, 1)
        return found | {"completion_tokens": tokens, "failed": self._failed}


def _answers(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        file = path.open()
    except FileNotFoundError as gone:
        raise EvaluationLost("The file of its answers was deleted.") from gone
    with file:
        for raw in file:
            line = json.loads(raw)
            yield line["custom_id"], _answer(line)


def _answer(line: dict[str, Any]) -> dict[str, Any]:
    response = line["response"]
    if response is None:
        return {"error": line["error"]["message"]}
    body = response["body"]
    if response["status_code"] != 200:
        return {"error": body["error"]["message"]}
    return {"text": answer_of(body), "completion_tokens": body["usage"]["completion_tokens"]}


def _rows(
    path: Path, variants: list[str], answers: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Of the batch's lines those of one question, which follow each other, as one."""
    with path.open() as file:
        for raw in file:
            line = json.loads(raw)
            number, _, place = line["custom_id"].partition("/")
            if place != "0":
                continue
            missing = {"error": "It was not asked: the batch ended before."}
            yield {
                "row": int(number),
                **{k: v for k, v in line["body"].items() if k in ("messages", "prompt")},
                "expected": line["expected"],
                "answers": {
                    variant: dict(answers.get(f"{number}/{place}", missing))
                    for place, variant in enumerate(variants)
                },
            }


def _write(database: Engine, evaluation_id: str, **values: Any) -> None:
    with Session(database) as session:
        row = session.get_one(Evaluation, evaluation_id)
        row.sqlmodel_update(values)
        session.add(row)
        session.commit()
