"""/api/v1/base-models: those on the platform's disk; brought from S3, a folder or an archive."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, select

from api.control.imports import ImportOut
from api.control.imports import shown as import_shown
from api.errors import ApiError
from api.registry import imports
from api.security import Operator, caller_of
from api.state import StateDep
from api.text import Text
from loraplex.entities import Deployment
from loraplex.needed_models import needed_models
from loraplex.status import Status
from loraplex.store.model_room import StoredModel, remove, stored

router = APIRouter(prefix="/base-models", tags=["base models"])


class ModelImport(BaseModel):
    """`source`: `s3://BUCKET/FOLDER`, a folder's path, or an archive in either. `name`: as
    deployments are to name it, `org/model`."""

    model_config = ConfigDict(extra="forbid")
    name: Text = Field(min_length=1, max_length=96)
    source: Text


class ModelOut(BaseModel):
    """`used_at`: when it was last fetched or loaded. `deployments`: that name it."""

    name: str
    size_bytes: int
    used_at: datetime
    deployments: list[str]


@router.get("")
def list_models(operator: Operator, state: StateDep) -> dict[str, list[ModelOut]]:
    by = _named_by(state)
    here = [model for model in stored(state.settings.models_dir) if model.whole]
    found = sorted(here, key=lambda model: model.name)
    return {"data": [_shown(model, by.get(model.name, [])) for model in found]}


@router.post("", status_code=202)
async def add(body: ModelImport, http: Request, operator: Operator, state: StateDep) -> ImportOut:
    """Fetched by a task worker, with progress: GET /api/v1/imports/{id}."""
    caller = caller_of(http)
    source = imports.source_of(state, caller, body.source)
    return import_shown(await imports.begin_model(state, caller.tenant, source, body.name))


@router.delete("/{name:path}", status_code=204)
async def delete(name: str, operator: Operator, state: StateDep) -> None:
    """One that no deployment, and no training, needs."""

    def act() -> None:
        found = [m for m in stored(state.settings.models_dir) if m.name == name]
        if not found:
            raise ApiError(404, "not_found", f"There is no base model {name[:96]!r} here.")
        with Session(state.database) as session:
            needed = name in needed_models(session)
        if needed:
            users = ", ".join(_named_by(state).get(name, [])) or "a change, or a training"
            message = f"It is needed by: {users}. Delete what needs it first."
            raise ApiError(409, "conflict", message)
        remove(found[0])

    await run_in_threadpool(act)


def _named_by(state: StateDep) -> dict[str, list[str]]:
    """Names of deployments by their base model, whoever's they are."""
    found: dict[str, list[str]] = {}
    with Session(state.database) as session:
        wanted = select(Deployment.base_model, Deployment.name)
        for model, name in session.exec(wanted.where(Deployment.status != Status.DELETED)):
            found.setdefault(model, []).append(name)
    return found


def _shown(model: StoredModel, deployments: list[str]) -> ModelOut:
    return ModelOut(
        name=model.name,
        size_bytes=model.size_bytes,
        used_at=datetime.fromtimestamp(model.used_at, UTC),
        deployments=deployments,
    )
