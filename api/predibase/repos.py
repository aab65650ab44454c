"""Repos and their versions as Predibase's SDK sees them; uploads in its three steps."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from sqlmodel import Session

from api import transfers as transfer_routes
from api.control import adapters as control
from api.control import repos as control_repos
from api.control.deployment_schemas import Description
from api.errors import bad_request
from api.predibase.finetuning import version_shown
from api.registry import repos, trainings, transfers, versions
from api.security import ForAdapters, ForLooking
from api.state import State, StateDep
from api.text import Text
from loraplex.entities import Adapter, Repo, TransferKind
from loraplex.store.peft_checks import CONFIG, WEIGHTS

router = APIRouter(prefix="/v2", tags=["predibase"])


class RepoCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    description: Description | None = None
    existsOk: bool = False


class Archived(BaseModel):
    model_config = ConfigDict(extra="forbid")
    archived: bool


class BeginUpload(BaseModel):
    model_config = ConfigDict(extra="forbid")
    repo: Text
    region: None = None  # there is one


class CompleteUpload(BaseModel):
    model_config = ConfigDict(extra="forbid")
    uploadToken: Text


@router.post("/repos", status_code=201)
def create(body: RepoCreate, tenant: ForAdapters, state: StateDep) -> dict[str, Any]:
    with Session(state.database) as session:
        row = repos.create(
            session, tenant, body.name, body.description or "", exists_ok=body.existsOk
        )
        return _repo(row, repos.versions(session, tenant, row.name))


@router.get("/repos")
def list_repos(
    tenant: ForLooking, state: StateDep, limit: Annotated[int, Query(ge=1, le=10_000)] = 10
) -> dict[str, Any]:
    """The newest first."""
    with Session(state.database) as session:
        rows = repos.list_all(session, tenant, limit)
        of = repos.versions_of(session, tenant, [row.name for row in rows])
        return {"data": {"repos": [_repo(row, of[row.name]) for row in rows]}}


@router.get("/repos/{repo}")
def get(repo: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    """By name or id."""
    with Session(state.database) as session:
        row = repos.need(session, tenant, repo)
        return _repo(row, repos.versions(session, tenant, row.name))


@router.delete("/repos/{repo}")
async def delete(repo: str, tenant: ForAdapters, state: StateDep) -> dict[str, Any]:
    await control_repos.delete(repo, tenant, state)
    return {"name": repo}


@router.get("/repos/{repo}/version/{tag}")
def version(repo: str, tag: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    """Also of one that is being trained, or that failed."""
    with Session(state.database) as session:
        job = trainings.for_version(session, tenant, repo, tag)
        if job is not None:
            return version_shown(job)
        return _version(versions.need(session, tenant, f"{repo}/{tag}"))


@router.put("/repos/{repo}/version/{tag}")
def archive(
    repo: str, tag: str, body: Archived, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    with Session(state.database) as session:
        row = versions.need(session, tenant, f"{repo}/{tag}")
        versions.archive(session, row, body.archived)
        return _version(row)


@router.delete("/repos/{repo}/version/{tag}")
async def delete_version(
    repo: str, tag: str, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    await control.delete(repo, tag, tenant, state)
    return {"repo": repo, "tag": tag}


@router.get("/repos/{repo}/version/{tag}/download", response_class=StreamingResponse)
def download(repo: str, tag: str, tenant: ForAdapters, state: StateDep) -> StreamingResponse:
    return control.content(repo, tag, tenant, state)


@router.post("/adapters/upload")
def begin_upload(
    body: BeginUpload, http: Request, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    """Where to PUT the files: URLs that need no key."""
    repos.check_name(body.repo)
    with Session(state.database) as session:
        transfer, secret = transfers.issue(session, tenant, TransferKind.ADAPTER, body.repo)
        names = (CONFIG, transfer_routes.PICKLE, WEIGHTS)
        urls = {name: transfers.url(http, transfer, secret, name) for name in names}
        return {"presignedUrls": urls, "uploadToken": transfer.id, "requiredHeaders": {}}


@router.put("/adapters/upload/")
@router.put("/adapters/upload", include_in_schema=False)
async def complete_upload(
    body: CompleteUpload, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    """The next version of the repo, of the files that came."""
    return await run_in_threadpool(_complete, state, tenant, body.uploadToken)


def _complete(state: State, tenant: str, token: str) -> dict[str, Any]:
    with Session(state.database, expire_on_commit=False) as session:
        transfer = transfers.need(session, tenant, token, TransferKind.ADAPTER)
    config, weights, pickle = (
        state.staging.path(token, name) for name in (CONFIG, WEIGHTS, transfer_routes.PICKLE)
    )
    if not weights.is_file() and pickle.is_file():
        message = "adapter_model.bin is a pickle, which can run code: it isn't read here. Save the "
        raise bad_request(message + "adapter as safetensors (PEFT's default) and upload that.")
    for path in (config, weights):
        if not path.is_file():
            raise bad_request(f"{path.name} was not uploaded.")
    new = versions.register(
        state, tenant, transfer.target, "", config.read_bytes(), weights.read_bytes()
    )
    transfers.end(state, transfer.id)
    return _version(new)


def _repo(row: Repo, of: Sequence[Adapter]) -> dict[str, Any]:
    found = [
        {
            "tag": each.version,
            "createdAt": each.created_at.isoformat(),
            "createdBy": each.tenant_id,
            "baseModel": each.base_model,
            "archived": each.archived,
        }
        for each in of
    ]
    return {
        "uuid": row.id,
        "name": row.name,
        "description": row.description or None,
        "versions": found,
    }


def _version(row: Adapter) -> dict[str, Any]:
    """`adapterPath` must not be empty: the SDK takes that for a failure."""
    return {
        "repo": row.repo,
        "tag": row.version,
        "archived": row.archived,
        "baseModel": row.base_model,
        "status": "completed",
        "adapterPath": row.digest,
        "description": row.lineage.get("notes", {}).get("description"),
        "checkpoint": row.checkpoint or None,
        "finetuningJob": None,
    }
