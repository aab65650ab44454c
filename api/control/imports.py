"""/api/v1/imports: adapters from a hub, S3, or a folder of the server."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.control.deployments import check_base_model, check_path
from api.registry import imports
from api.security import ForAdapters, ForLooking, caller_of
from api.state import StateDep
from api.text import Text
from loraplex.entities import AdapterImport, WorkState

router = APIRouter(prefix="/imports", tags=["adapters"])


class ImportCreate(BaseModel):
    """`source`: `hub:ORG/NAME`, `hub:ORG/NAME@REVISION`, `s3://BUCKET/FOLDER`, a folder's path."""

    model_config = ConfigDict(extra="forbid")
    source: Text
    repo: Text = Field("", description="Unset: after the source.")
    base_model: Text = Field("", max_length=512, description="Instead of the config's.")
    token: Text = Field("", max_length=4096, repr=False, description="The hub's, for this import.")


class ImportOut(BaseModel):
    """`adapter`: REPO/VERSION, when it has succeeded, or the base model's name; `model`: that it is
    to be, instead of an adapter. `error`: why it failed."""

    id: str
    source: str
    repo: str
    state: WorkState
    doing: str
    progress: float | None
    adapter: str
    model: str
    error: str
    created_at: datetime


@router.post("", status_code=202)
async def create(
    body: ImportCreate, http: Request, tenant: ForAdapters, state: StateDep
) -> ImportOut:
    """Fetch an adapter and register it. What came before goes on being what it is: other content
    is another version."""
    source = imports.source_of(state, caller_of(http), body.source)
    repo = body.repo or source.repo
    if body.base_model:
        check_path(http, body.base_model)
        check_base_model(state, body.base_model)
    row = await imports.begin(state, tenant, source, repo, body.base_model, body.token)
    return shown(row)


@router.get("")
def list_imports(
    tenant: ForLooking, state: StateDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, list[ImportOut]]:
    """The newest first."""
    with Session(state.database) as session:
        return {"data": [shown(row) for row in imports.of_tenant(session, tenant, limit)]}


@router.get("/{import_id}")
def get(import_id: str, tenant: ForLooking, state: StateDep) -> ImportOut:
    with Session(state.database) as session:
        return shown(imports.need(session, tenant, import_id))


@router.post("/{import_id}/cancel")
def cancel(import_id: str, tenant: ForAdapters, state: StateDep) -> ImportOut:
    with Session(state.database) as session:
        return shown(imports.cancel(session, imports.need(session, tenant, import_id)))


def shown(row: AdapterImport) -> ImportOut:
    return ImportOut(**row.model_dump(include=set(ImportOut.model_fields)))
