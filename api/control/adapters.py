"""/api/v1/adapters: register LoRA weights as the next version of a repo; list, show, download,
archive and delete versions."""

from datetime import datetime
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.errors import bad_request
from api.registry import versions
from api.registry.archive import as_zip, read_zip_or_tar
from api.registry.whereabouts import (
    AdapterState,
    Place,
    places,
    state_of,
    told_by_replicas,
)
from api.security import ForAdapters, ForLooking
from api.state import StateDep
from api.text import Text
from loraplex.entities import Adapter

router = APIRouter(prefix="/adapters", tags=["adapters"])

Tag = Annotated[Text, Field(min_length=1, max_length=577)]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that can't be printed")
    return text


Printable = Annotated[Text, AfterValidator(_printable)]
TagName = Annotated[Printable, Field(pattern="^[^=]{1,64}$")]
TagValue = Annotated[Printable, Field(max_length=512)]
Tags = Annotated[dict[TagName, TagValue], Field(max_length=16)]


class AdapterOut(BaseModel):
    ref: str
    repo: str
    version: int
    base_model: str
    digest: str
    rank: int
    targets: list[str]
    size_bytes: int
    checkpoint: int
    archived: bool
    tags: dict[str, str]
    lineage: dict[str, Any]
    created_at: datetime


class AdapterWhere(AdapterOut):
    """What it is now; `places`: on replicas of deployments that one may use."""

    state: AdapterState
    places: list[Place]


class AdapterPage(BaseModel):
    data: list[AdapterWhere]
    has_more: bool


class AdapterChange(BaseModel):
    """`tags`: instead of those that it has."""

    model_config = ConfigDict(extra="forbid")
    archived: bool | None = None
    tags: Tags | None = None


@router.post("", status_code=201)
async def register(
    repo: Annotated[str, Form()],
    tenant: ForAdapters,
    state: StateDep,
    adapter_config: UploadFile | None = None,
    adapter_model: UploadFile | None = None,
    archive: UploadFile | None = None,
    base_model: Annotated[str, Form()] = "",
) -> AdapterOut:
    """Store PEFT's `adapter_config.json` and `adapter_model.safetensors`, or an archive (zip, tar)
    that holds both, as `repo/<next version>`.

    The same files again give the version that they already have. `base_model` overrides the name
    in the config (a local path, say).
    """
    if archive is not None and adapter_config is None and adapter_model is None:
        most = state.settings.max_upload_bytes
        config, weights = await run_in_threadpool(read_zip_or_tar, archive.file, most)
    elif adapter_config is not None and adapter_model is not None and archive is None:
        config, weights = await adapter_config.read(), await adapter_model.read()
    else:
        message = "Send adapter_config and adapter_model, or archive."
        raise bad_request(message, "adapter_config")
    new = await run_in_threadpool(
        versions.register, state, tenant, repo, base_model, config, weights
    )
    return shown(new)


@router.get("")
async def list_adapters(
    tenant: ForLooking,
    state: StateDep,
    archived: bool = False,
    tag: Annotated[list[Tag] | None, Query(max_length=16)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Annotated[str | None, Query(max_length=128)] = None,
) -> AdapterPage:
    """By repo and version. `archived`: those too. `tag`: those that have it, as `name=value`, or
    with any value. `after`: those behind this `repo/version`."""
    told = await told_by_replicas(state, tenant)

    def read() -> AdapterPage:
        found = places(told)
        with Session(state.database) as session:
            rows = versions.of_tenant(session, tenant, archived=archived, after=after)
            tagged = (r for r in rows if all(versions.has_tag(r, each) for each in tag or ()))
            page = list(islice(tagged, limit + 1))
            shown_ = [_where(row, found.get(row.digest, [])) for row in page[:limit]]
        return AdapterPage(data=shown_, has_more=len(page) > limit)

    return await run_in_threadpool(read)


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
        if body.archived is not None:
            versions.archive(session, row, body.archived)
        if body.tags is not None:
            versions.tag(session, row, body.tags)
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
