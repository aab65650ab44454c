"""/api/v1/repos: names under which adapters have versions."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, cast

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select as sql_select
from sqlmodel import Session, col

from api.control.adapters import AdapterOut, shown
from api.control.deployment_schemas import Description
from api.registry import repos
from api.security import ForAdapters, ForLooking
from api.state import StateDep
from loraplex.entities import Adapter, Repo, UsageRecord
from loraplex.version_figures import Figures, Record, figures

router = APIRouter(prefix="/repos", tags=["adapters"])

_MOST_RECORDS = 20_000


class RepoCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    description: Description = ""


class RepoOut(BaseModel):
    id: str
    name: str
    description: str
    created_at: datetime
    versions: list[AdapterOut]


@router.post("", status_code=201)
def create(body: RepoCreate, tenant: ForAdapters, state: StateDep) -> RepoOut:
    """Registering an adapter makes its repo, too."""
    with Session(state.database) as session:
        row = repos.create(session, tenant, body.name, body.description, exists_ok=False)
        return _shown(row, repos.versions(session, tenant, row.name))


@router.get("")
def list_repos(
    tenant: ForLooking, state: StateDep, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000
) -> dict[str, list[RepoOut]]:
    """The newest first."""
    with Session(state.database) as session:
        rows = repos.list_all(session, tenant, limit)
        of = repos.versions_of(session, tenant, [row.name for row in rows])
        return {"data": [_shown(row, of[row.name]) for row in rows]}


@router.get("/{name}")
def get(name: str, tenant: ForLooking, state: StateDep) -> RepoOut:
    with Session(state.database) as session:
        row = repos.need(session, tenant, name)
        return _shown(row, repos.versions(session, tenant, row.name))


@router.get("/{name}/figures")
def version_figures(
    name: str,
    tenant: ForLooking,
    state: StateDep,
    hours: Annotated[float, Query(gt=0, le=24 * 365)] = 24,
) -> dict[str, list[Figures]]:
    """How each version did lately: the newest 20,000 answers at most."""
    with Session(state.database) as session:
        repo = repos.need(session, tenant, name).name
        wanted = sql_select(*(getattr(UsageRecord, name) for name in Record.__annotations__))
        mine = wanted.where(
            col(UsageRecord.tenant_id) == tenant,
            col(UsageRecord.at) >= int(time.time() - hours * 3600),
            # A range, not LIKE: that has no case in SQLite. "0" comes after "/".
            col(UsageRecord.adapter) >= f"{repo}/",
            col(UsageRecord.adapter) < f"{repo}0",
        )
        newest = mine.order_by(col(UsageRecord.at).desc()).limit(_MOST_RECORDS)
        return {"data": figures([cast(Record, row) for row in session.execute(newest)])}


@router.delete("/{name}", status_code=204)
async def delete(name: str, tenant: ForAdapters, state: StateDep) -> None:
    """With all its versions; answers under way go on."""

    def act() -> None:
        with Session(state.database) as session:
            repos.delete(session, tenant, repos.need(session, tenant, name))

    await run_in_threadpool(act)
    state.resolver.forget()


def _shown(row: Repo, of: Sequence[Adapter]) -> RepoOut:
    return RepoOut(versions=[shown(each) for each in of], **row.model_dump(exclude={"tenant_id"}))
