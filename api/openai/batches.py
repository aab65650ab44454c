"""/v1/batches: requests of a file, run at low priority within a day."""

import time
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, update
from sqlmodel import Session, col, select

from api.batches.request import ENDPOINTS
from api.errors import ApiError, bad_request
from api.openai.files import need_file, page
from api.requests.quota import check_budget
from api.security import ForInference, caller_of
from api.state import State, StateDep
from api.text import Text
from loraplex.batch_status import UNDER_WAY, BatchStatus
from loraplex.entities import Batch, utc_now

router = APIRouter(prefix="/batches", tags=["batches"])

_WINDOW = timedelta(hours=24)
_MOST_NOTES = 16
_MOST_UNDER_WAY = 100  # of a tenant


class BatchCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    input_file_id: str = Field(max_length=128)
    endpoint: str
    completion_window: Literal["24h"]
    metadata: dict[Text, Text] | None = Field(None, max_length=_MOST_NOTES)


@router.post("")
def create(
    body: BatchCreate, http: Request, tenant: ForInference, state: StateDep
) -> dict[str, Any]:
    """Run a file's requests, in any order, each once."""
    caller = caller_of(http)
    check_budget(caller)
    if body.endpoint not in ENDPOINTS:
        raise bad_request(f"endpoint: one of {', '.join(ENDPOINTS)}.", "endpoint")
    file = need_file(state, tenant, body.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise bad_request("The file's purpose must be 'batch'.", "input_file_id")
    row = Batch(
        tenant_id=tenant,
        key_id=caller.key,
        endpoint=body.endpoint,
        input_file_id=file.id,
        notes=body.metadata or {},
        expires_at=utc_now() + _WINDOW,
    )
    with Session(state.database, expire_on_commit=False) as session:
        check_room(session, tenant)
        session.add(row)
        session.commit()
    return shown(row)


@router.get("")
def list_batches(
    tenant: ForInference,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> dict[str, Any]:
    """Newest first."""
    wanted = select(Batch).where(Batch.tenant_id == tenant)
    with Session(state.database) as session:
        rows = session.exec(wanted.order_by(col(Batch.created_at), col(Batch.id))).all()
        return page([shown(row) for row in rows], limit, after, reverse=True)


@router.get("/{batch_id}")
def retrieve(batch_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    return shown(_need(state, tenant, batch_id))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """No further requests; what is done is in its output file."""
    row = _need(state, tenant, batch_id)
    open_ = (BatchStatus.VALIDATING.value, BatchStatus.IN_PROGRESS.value)
    status = BatchStatus.CANCELLING.value
    times = {**row.times, status: int(time.time())}
    with Session(state.database, expire_on_commit=False) as session:
        session.execute(
            update(Batch)
            .where(col(Batch.id) == row.id, col(Batch.status).in_(open_))
            .values(status=status, times=times)
        )
        session.commit()
        row = session.get_one(Batch, row.id)
        if row.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
            message = f"Batch {batch_id!r} is {row.status}: there is nothing to cancel."
            raise ApiError(409, "conflict", message)
        return shown(row)


def check_room(session: Session, tenant: str) -> None:
    """Raises ApiError 429."""
    wanted = select(func.count()).where(
        col(Batch.tenant_id) == tenant, col(Batch.status).in_(UNDER_WAY)
    )
    if session.exec(wanted).one() >= _MOST_UNDER_WAY:
        message = f"{_MOST_UNDER_WAY} batches are under way already. Wait for some."
        raise ApiError(429, "too_many_batches", message, retry_after_s=60)


def _need(state: State, tenant: str, batch_id: str) -> Batch:
    with Session(state.database, expire_on_commit=False) as session:
        row = session.get(Batch, batch_id)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no batch {batch_id!r}.")
    return row


def shown(row: Batch) -> dict[str, Any]:
    times = {f"{status.value}_at": row.times.get(status.value) for status in BatchStatus}
    del times["validating_at"]
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": {"object": "list", "data": row.errors} if row.errors else None,
        "input_file_id": row.input_file_id,
        "completion_window": "24h",
        "status": row.status,
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        "created_at": int(row.created_at.timestamp()),
        "expires_at": int(row.expires_at.timestamp()),
        **times,
        "request_counts": {
            "total": row.total,
            "completed": row.completed,
            "failed": row.failed,
        },
        "metadata": row.notes or None,
    }
