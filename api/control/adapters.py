"""/api/v1/adapters: register LoRA weights as the next version of a repo; list, show, download,
archive and delete versions."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from sqlmodel import Session

from api.registry import versions
from api.registry.archive import as_zip
from api.registry.whereabouts import (
    AdapterState,
    Place,
    places,
    state_of,
    told_by_replicas,
)
from api.security import ForAdapters, ForLooking
from api.state import StateDep
from loraplex.entities import Adapter

router = APIRouter(prefix="/adapters", tags=["adapters"])


class AdapterOut(BaseModel):
    ref: str
    repo: str
    version: int
    base_model: str
    digest: str
    rank: int
    targets: list[str]
    size_bytes: int
    archived: bool
    created_at: datetime


class AdapterWhere(AdapterOut):
    """What it is now; `places`: on replicas of deployments that one may use."""

    state: AdapterState
    places: list[Place]


class AdapterChange(BaseModel):
    model_config = ConfigDict(extra="forbid")
    archived: bool


@router.post("", status_code=201)
async def register(
    repo: Annotated[str, Form()],
    adapter_config: UploadFile,
    adapter_model: UploadFile,
    tenant: ForAdapters,
    state: StateDep,
    base_model: Annotated[str, Form()] = "",
) -> AdapterOut:
    """Store PEFT's `adapter_config.json` and `adapter_model.safetensors` as `repo/<next version>`.

    The same files again give the version that they already have. `base_model` overrides the name
    in the config (a local path, say).
    """
    config, weights = await adapter_config.read(), await adapter_model.read()
    new = await run_in_threadpool(
        versions.register, state, tenant, repo, base_model, config, weights
    )
    return shown(new)


@router.get("")
async def list_adapters(
    tenant: ForLooking, state: StateDep, archived: bool = False
) -> dict[str, list[AdapterWhere]]:
    """`archived`: those too."""

    told = await told_by_replicas(state, tenant)

    def read() -> list[AdapterWhere]:
        found = places(told)
        with Session(state.database) as session:
            rows = versions.of_tenant(session, tenant, archived=archived)
            return [_where(row, found.get(row.digest, [])) for row in rows]

    return {"data": await run_in_threadpool(read)}


@router.get("/{repo}/{version}")
async def get(repo: str, version: str, tenant: ForLooking, state: StateDep) -> AdapterWhere:
    told = await told_by_replicas(state, tenant)

    def read() -> AdapterWhere:
        with Session(state.database) as session:
            row = versions.need(session, tenant, f"{repo}/{version}")
            return _where(row, places(told).get(row.digest, []))

    return await run_in_threadpool(read)


@router.patch("/{repo}/{version}")
def change(
    repo: str, version: str, body: AdapterChange, tenant: ForAdapters, state: StateDep
) -> AdapterOut:
    """An archived version isn't listed; who names it still has it."""
    with Session(state.database) as session:
        row = versions.need(session, tenant, f"{repo}/{version}")
        versions.archive(session, row, body.archived)
        return shown(row)


@router.delete("/{repo}/{version}", status_code=204)
async def delete(repo: str, version: str, tenant: ForAdapters, state: StateDep) -> None:
    """Answers under way go on; its number isn't used again."""

    def act() -> None:
        with Session(state.database) as session:
            versions.delete(session, versions.need(session, tenant, f"{repo}/{version}"))

    await run_in_threadpool(act)
    state.resolver.forget()


@router.get("/{repo}/{version}/content", response_class=StreamingResponse)
def content(repo: str, version: str, tenant: ForAdapters, state: StateDep) -> StreamingResponse:
    """PEFT's two files in a zip."""
    with Session(state.database, expire_on_commit=False) as session:
        row = versions.need(session, tenant, f"{repo}/{version}")
    return as_zip(state, row)


def shown(row: Adapter) -> AdapterOut:
    return AdapterOut(ref=row.ref, **row.model_dump(exclude={"id", "tenant_id", "deleted_at"}))


def _where(row: Adapter, found: list[Place]) -> AdapterWhere:
    return AdapterWhere(**shown(row).model_dump(), state=state_of(found), places=found)
