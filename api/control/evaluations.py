"""/api/v1/evaluations: the same questions to a base model and adapters of it, side by side."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.evaluations.begin import EvaluationCreate, begin
from api.openai import batches
from api.requests.quota import check_budget
from api.security import ForInference, caller_of
from api.state import State, StateDep
from loraplex.batch_status import UNDER_WAY, BatchStatus
from loraplex.compare_and_set import changed
from loraplex.entities import Batch, Evaluation, utc_now

router = APIRouter(prefix="/evaluations", tags=["evaluations"])

_ASK_AGAIN = timedelta(minutes=15)  # longer than scoring may take


class EvaluationStatus(StrEnum):
    RUNNING = "running"
    SCORING = "scoring"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"  # what was answered before is scored
    FAILED = "failed"


class EvaluationOut(BaseModel):
    """`scores`: by variant, the means of its metrics, and how many answers failed."""

    id: str
    deployment: str
    dataset: str
    variants: list[str]
    metrics: list[str]
    rows: int
    status: EvaluationStatus
    answered: int
    answers: int  # that there will be
    scores: dict[str, dict[str, float]] | None
    error: str
    results_file_id: str | None
    batch_id: str
    created_at: datetime


@router.post("", status_code=201)
async def create(
    body: EvaluationCreate, http: Request, tenant: ForInference, state: StateDep
) -> EvaluationOut:
    """Its answers are made at low priority, in the same batches for all variants."""
    caller = caller_of(http)
    check_budget(caller)
    row = await begin(state, caller, body)
    return await run_in_threadpool(_read, state, tenant, row.id)


@router.get("")
async def list_evaluations(
    tenant: ForInference, state: StateDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, list[EvaluationOut]]:
    """The newest first."""
    found = await run_in_threadpool(_list, state, tenant, limit)
    for each in found:
        await _have_scored(state, each)
    return {"data": found}


def _list(state: State, tenant: str, limit: int) -> list[EvaluationOut]:
    wanted = select(Evaluation, Batch).join(Batch).where(Evaluation.tenant_id == tenant)
    newest = wanted.order_by(col(Evaluation.created_at).desc()).limit(limit)
    with Session(state.database) as session:
        return [_shown(*each) for each in session.exec(newest)]


@router.get("/{evaluation}")
async def get(evaluation: str, tenant: ForInference, state: StateDep) -> EvaluationOut:
    """Who looks at one whose answers are here has them scored; /v1/files has the result file."""
    found = await run_in_threadpool(_read, state, tenant, evaluation)
    await _have_scored(state, found)
    return found


async def _have_scored(state: State, found: EvaluationOut) -> None:
    waits = found.status == EvaluationStatus.SCORING
    if waits and await run_in_threadpool(_asks, state, found.id):
        await state.broker.ask_scoring(found.id)


@router.post("/{evaluation}/cancel")
def cancel(evaluation: str, tenant: ForInference, state: StateDep) -> EvaluationOut:
    """No more questions; what was answered is scored."""
    batches.cancel(_read(state, tenant, evaluation).batch_id, tenant, state)
    return _read(state, tenant, evaluation)


def _read(state: State, tenant: str, evaluation: str) -> EvaluationOut:
    with Session(state.database) as session:
        row = session.get(Evaluation, evaluation)
        if row is None or row.tenant_id != tenant:
            raise ApiError(404, "not_found", f"There is no evaluation {evaluation[:80]!r}.")
        return _shown(row, session.get_one(Batch, row.batch_id))


def _asks(state: State, evaluation: str) -> bool:
    """One of all who look does, and again when it was lost."""
    now = utc_now()
    asked = col(Evaluation.scoring_asked_at)
    mine = update(Evaluation).where(
        col(Evaluation.id) == evaluation, or_(asked.is_(None), asked < now - _ASK_AGAIN)
    )
    with Session(state.database) as session:
        done = changed(session, mine.values(scoring_asked_at=now))
        session.commit()
        return bool(done)


def _shown(row: Evaluation, batch: Batch) -> EvaluationOut:
    facts: dict[str, Any] = row.model_dump(
        include={"id", "deployment", "dataset", "variants", "metrics", "rows", "batch_id"}
    )
    errors = "; ".join(each["message"] for each in batch.errors)
    return EvaluationOut(
        **facts,
        status=_status(row, batch),
        answered=batch.completed + batch.failed,
        answers=row.rows * len(row.variants),
        scores=row.scores or None,
        error=row.error or errors,
        results_file_id=row.results_file_id,
        created_at=row.created_at,
    )


def _status(row: Evaluation, batch: Batch) -> EvaluationStatus:
    if batch.status in UNDER_WAY:
        return EvaluationStatus.RUNNING
    cancelled = batch.status == BatchStatus.CANCELLED
    if cancelled and not (batch.output_file_id or batch.error_file_id):
        return EvaluationStatus.CANCELLED
    if row.error or batch.status == BatchStatus.FAILED:
        return EvaluationStatus.FAILED
    if row.scores is None:
        return EvaluationStatus.SCORING
    return EvaluationStatus.CANCELLED if cancelled else EvaluationStatus.SUCCEEDED
