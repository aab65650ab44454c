"""An evaluation's beginning: a batch with each row of a dataset once for each variant, side by
side, so that they run in the same mixed batches."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.batches.lines import MOST_LINE_BYTES, MOST_LINES
from api.errors import ApiError, bad_request
from api.keyring import Caller
from api.openai.batches import check_room
from api.openai.files import need_file
from api.registry import datasets
from api.registry.stored_files import check_storage, storing
from api.requests.resolve import need_usable
from api.state import State
from api.text import Text, storable
from loraplex.datasets import DatasetInvalid, inspect, read
from loraplex.entities import Batch, Evaluation, StoredFile, utc_now
from loraplex.first_line import first_line
from loraplex.json_schema import validator
from loraplex.questions import Question, question

BASE = "base"
_WINDOW = timedelta(hours=24)
_MOST_SCHEMA = 2**16  # characters
METRICS = ("exact_match", "rouge")


class EvaluationCreate(BaseModel):
    """`variants`: `base`, `repo/version`, `repo/version@step` or `repo@alias`. `json_schema`: how
    many answers are JSON that it allows is counted, too."""

    model_config = ConfigDict(extra="forbid")
    deployment: Text = Field(min_length=1, max_length=512)
    dataset: Text = Field(min_length=1, max_length=256, description="Its name, or a file's id.")
    variants: list[Text] = Field(min_length=1, max_length=32)
    metrics: list[str] = Field(list(METRICS), max_length=len(METRICS))
    json_schema: dict[str, Any] | None = None
    rows: int | None = Field(None, ge=1, le=MOST_LINES, description="The first ones; unset: all.")
    max_tokens: int = Field(256, ge=1, le=4096)
    temperature: float = Field(0.0, ge=0, le=2)
    as_chat: bool = Field(False, description="Prompts are said by the user.")


async def begin(state: State, caller: Caller, wanted: EvaluationCreate) -> Evaluation:
    """Raises ApiError."""
    await run_in_threadpool(_check, state, caller.tenant, wanted)
    variants = await _pinned(state, caller.tenant, wanted)
    return await run_in_threadpool(_store, state, caller, wanted, variants)


def _check(state: State, tenant: str, wanted: EvaluationCreate) -> None:
    with Session(state.database) as session:
        need_usable(session, tenant, wanted.deployment)
    unknown = sorted({*wanted.metrics} - {*METRICS})
    if unknown:
        raise bad_request(
            f"metrics: {', '.join(METRICS)}; not {', '.join(unknown)[:80]}.", "metrics"
        )
    if wanted.json_schema is None:
        return
    if not storable(wanted.json_schema) or len(json.dumps(wanted.json_schema)) > _MOST_SCHEMA:
        raise bad_request(f"json_schema: at most {_MOST_SCHEMA} characters.", "json_schema")
    try:
        validator(wanted.json_schema)
    except (ValueError, RecursionError) as wrong:
        raise bad_request(f"json_schema: {first_line(wrong)[:300]}", "json_schema") from wrong


async def _pinned(state: State, tenant: str, wanted: EvaluationCreate) -> dict[str, str]:
    """Each variant's name, and the `model` that it is; aliases as they are now. Raises ApiError."""
    found: dict[str, str] = {}
    for variant in wanted.variants:
        named = wanted.deployment if variant == BASE else f"{wanted.deployment}:{variant}"
        resolved = await state.resolver.resolve(tenant, named)
        if len(resolved.variants) > 1:
            names = ", ".join(each.name for each in resolved.variants)
            raise bad_request(f"{variant} is several versions, {names}: name them.", "variants")
        name = resolved.variants[0].name or BASE
        if name in found:
            raise bad_request(f"{variant} is {name}, which is named already.", "variants")
        found[name] = wanted.deployment if name == BASE else f"{wanted.deployment}:{name}"
    return found


def _store(
    state: State, caller: Caller, wanted: EvaluationCreate, variants: dict[str, str]
) -> Evaluation:
    tenant = caller.tenant
    questions = _questions(state, tenant, wanted)
    if len(questions) * len(variants) > MOST_LINES:
        message = (
            f"{len(questions)} rows for {len(variants)} variants: at most {MOST_LINES} in all."
        )
        raise bad_request(message, "rows")
    options = {"max_tokens": wanted.max_tokens, "temperature": wanted.temperature}
    lines = partial(_lines, questions, [*variants.values()], options)
    size = _size(lines(), len(variants), state.settings.max_upload_bytes)
    with Session(state.database) as session:  # before anything is written
        check_room(session, tenant)
        check_storage(session, state, tenant, size)
    name = f"{wanted.dataset[:200]}.questions.jsonl"
    file = StoredFile(tenant_id=tenant, filename=name, purpose="batch", bytes=0)
    file.bytes = state.files.put(file.id, lines())
    batch = Batch(
        tenant_id=tenant,
        key_id=caller.key,
        endpoint=questions[0].endpoint,
        input_file_id=file.id,
        expires_at=utc_now() + _WINDOW,
    )
    row = Evaluation(
        tenant_id=tenant,
        deployment=wanted.deployment,
        dataset=wanted.dataset,
        variants=list(variants),
        metrics=wanted.metrics,
        json_schema=wanted.json_schema,
        rows=len(questions),
        batch_id=batch.id,
    )
    with storing(state, file) as session:
        session.add(file)
        session.add(batch)
        session.flush()
        session.add(row)
        session.commit()
    return row


def _questions(state: State, tenant: str, wanted: EvaluationCreate) -> list[Question]:
    with Session(state.database) as session:
        dataset = datasets.find(session, tenant, wanted.dataset)
    file = need_file(state, tenant, dataset.file_id if dataset else wanted.dataset, "dataset")
    path = state.files.path(file.id)
    if dataset is None:
        try:
            inspect(path, file.filename)
        except DatasetInvalid as wrong:
            raise bad_request(f"{file.filename} refused: {wrong}", "dataset") from wrong
    found: list[Question] = []
    try:
        rows = list(islice(read(path, file.filename), min(wanted.rows or MOST_LINES, MOST_LINES)))
    except FileNotFoundError as gone:
        raise ApiError(404, "not_found", f"The file of {wanted.dataset!r} is gone.") from gone
    for _, row in rows:
        asked = question(row, as_chat=wanted.as_chat) if isinstance(row, dict) else None
        if asked is None:
            raise bad_request("Rows of text have no answer to compare with.", "dataset")
        found.append(asked)
    return found


def _size(lines: Iterator[bytes], variants: int, most: int) -> int:
    """Bytes. Raises ApiError where a line, or all of them, are too long for a batch."""
    size = 0
    for number, line in enumerate(lines):
        size += len(line)
        if len(line) > MOST_LINE_BYTES:
            message = f"Row {number // variants + 1} has over {MOST_LINE_BYTES} bytes."
            raise bad_request(message, "dataset")
        if size > most:
            message = f"Rows and variants make over {most} bytes: ask fewer rows at once."
            raise bad_request(message, "rows")
    return size


def _lines(
    questions: Sequence[Question], models: Sequence[str], options: dict[str, Any]
) -> Iterator[bytes]:
    """A batch's; `expected` is for who scores the answers."""
    for number, each in enumerate(questions):
        for place, model in enumerate(models):
            line = {
                "custom_id": f"{number}/{place}",
                "method": "POST",
                "url": each.endpoint,
                "body": {"model": model, **each.asked, **options},
                "expected": each.expected,
            }
            yield json.dumps(line, ensure_ascii=False).encode() + b"\n"
