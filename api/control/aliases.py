"""/api/v1/repos/{repo}/aliases: which version `repo@name` is."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.registry import aliases, repos
from api.security import ForAdapters, ForLooking
from api.state import State, StateDep
from loraplex.entities import Alias

router = APIRouter(prefix="/repos/{repo}/aliases", tags=["adapters"])


class AliasChange(BaseModel):
    """`versions`: weights by version, `{"1": 90, "2": 10}`. The same `user` gets the same one."""

    model_config = ConfigDict(extra="forbid")
    versions: dict[Annotated[int, Field(ge=1, lt=10**9)], Annotated[int, Field(ge=1, le=1_000_000)]]


class ShadowChange(BaseModel):
    """A version that is asked the same, at low priority; its answers are kept with the others'."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1, lt=10**9)
    percent: float = Field(gt=0, le=100)


class AliasOut(BaseModel):
    ref: str
    base_model: str
    versions: dict[int, int]
    previous: dict[int, int]
    shadow: int | None
    shadow_percent: float
    changed_at: datetime


@router.get("")
def list_aliases(repo: str, tenant: ForLooking, state: StateDep) -> dict[str, list[AliasOut]]:
    with Session(state.database) as session:
        name = repos.need(session, tenant, repo).name
        return {"data": [shown(a) for a in aliases.of_tenant(session, tenant) if a.repo == name]}


@router.put("/{alias}")
async def put(
    repo: str, alias: str, body: AliasChange, tenant: ForAdapters, state: StateDep
) -> AliasOut:
    """Moved at once for all that comes; what runs keeps its version."""

    def act() -> AliasOut:
        with Session(state.database) as session:
            row = repos.need(session, tenant, repo)
            return shown(aliases.put(session, tenant, row, alias, body.versions))

    return await _changed(state, await run_in_threadpool(act))


@router.post("/{alias}/promote")
async def promote(repo: str, alias: str, tenant: ForAdapters, state: StateDep) -> AliasOut:
    """All of the traffic to its newest version."""

    def act() -> AliasOut:
        with Session(state.database) as session:
            return shown(aliases.promote(session, aliases.need(session, tenant, repo, alias)))

    return await _changed(state, await run_in_threadpool(act))


@router.post("/{alias}/rollback")
async def roll_back(repo: str, alias: str, tenant: ForAdapters, state: StateDep) -> AliasOut:
    """To what it was before its last change."""

    def act() -> AliasOut:
        with Session(state.database) as session:
            row = aliases.need(session, tenant, repo, alias)
            return shown(aliases.roll_back(session, tenant, row))

    return await _changed(state, await run_in_threadpool(act))


@router.put("/{alias}/shadow")
async def shadow(
    repo: str, alias: str, body: ShadowChange, tenant: ForAdapters, state: StateDep
) -> AliasOut:
    """Copies of a share of its requests, asked when nothing waits: a sample, not a promise. Both
    answers are among its deployment's exchanges."""
    return await _shadow(state, tenant, repo, alias, body.version, body.percent)


@router.delete("/{alias}/shadow")
async def unshadow(repo: str, alias: str, tenant: ForAdapters, state: StateDep) -> AliasOut:
    return await _shadow(state, tenant, repo, alias, None, 0.0)


async def _shadow(
    state: State, tenant: str, repo: str, alias: str, version: int | None, percent: float
) -> AliasOut:
    def act() -> AliasOut:
        with Session(state.database) as session:
            row = aliases.need(session, tenant, repo, alias)
            return shown(aliases.shadow(session, row, version, percent))

    return await _changed(state, await run_in_threadpool(act))


@router.delete("/{alias}", status_code=204)
async def delete(repo: str, alias: str, tenant: ForAdapters, state: StateDep) -> None:
    def act() -> None:
        with Session(state.database) as session:
            aliases.delete(session, aliases.need(session, tenant, repo, alias))

    await run_in_threadpool(act)
    state.resolver.forget()


async def _changed(state: State, now: AliasOut) -> AliasOut:
    """This process knows it at once, the others within a second."""
    state.resolver.forget()
    return now


def shown(row: Alias) -> AliasOut:
    return AliasOut(
        ref=row.ref,
        base_model=row.base_model,
        versions={int(v): w for v, w in row.weights.items()},
        previous={int(v): w for v, w in row.previous.items()},
        shadow=row.shadow,
        shadow_percent=row.shadow_percent,
        changed_at=row.changed_at,
    )
