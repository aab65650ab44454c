"""/api/v1/deployments/{name}/exchanges: what was captured of a deployment that captures, and what
shadows answered."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.captures import exchanges
from api.control.datasets import DatasetOut
from api.requests.resolve import need_usable
from api.security import ForAdapters
from api.state import StateDep
from api.text import Text

router = APIRouter(prefix="/deployments/{name}/exchanges", tags=["captures"])


class ExchangeOut(BaseModel):
    """`asked`: messages, or a prompt. `adapter`: that answered; empty: the base model."""

    id: int
    at: datetime
    adapter: str
    asked: dict[str, Any]
    answer: str
    shadows: dict[str, str]


class AsDataset(BaseModel):
    """`answers_of`: `base` or `repo/version`, its own answers or those as a shadow; empty: whoever
    answered."""

    model_config = ConfigDict(extra="forbid")
    name: Text = Field(max_length=128)
    answers_of: Text = Field("", max_length=128)


@router.get("")
def list_exchanges(
    name: str,
    tenant: ForAdapters,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> dict[str, list[ExchangeOut]]:
    """The newest first; `before`: the id of the last one that one has."""
    with Session(state.database) as session:
        deployment = need_usable(session, tenant, name)
        rows = exchanges.newest(session, tenant, deployment, limit, before)
        return {"data": [ExchangeOut(**row.model_dump()) for row in rows]}


@router.delete("")
def forget(name: str, tenant: ForAdapters, state: StateDep) -> dict[str, int]:
    """All that was captured of it."""
    with Session(state.database) as session:
        deployment = need_usable(session, tenant, name)
        return {"forgotten": exchanges.forget(session, tenant, deployment)}


@router.post("/dataset", status_code=201)
def as_dataset(name: str, body: AsDataset, tenant: ForAdapters, state: StateDep) -> DatasetOut:
    """A dataset to learn from, of what was captured so far."""
    with Session(state.database, expire_on_commit=False) as session:
        deployment = need_usable(session, tenant, name)
    made = exchanges.as_dataset(state, tenant, deployment, body.name, body.answers_of)
    return DatasetOut(**made.model_dump())
