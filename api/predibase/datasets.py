"""Datasets as Predibase's SDK uploads, finds and downloads them."""

from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api import transfers as transfer_routes
from api.errors import ApiError, bad_request
from api.registry import datasets, transfers
from api.registry.stored_files import check_filename
from api.security import ForAdapters, ForLooking
from api.state import StateDep
from api.text import Text
from loraplex.datasets import is_csv
from loraplex.entities import Dataset, StoredFile, TransferKind

router = APIRouter(tags=["predibase"])

_CONNECTION = "file_uploads"  # the only one: files that were sent here


class BeginUpload(BaseModel):
    model_config = ConfigDict(extra="forbid")
    fileName: str = Field(min_length=1, max_length=255)
    mimeType: str | None = None
    region: None = None  # there is one


class CompleteUpload(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Text
    uploadToken: Text


@router.post("/v2/datasets/upload")
def begin_upload(
    body: BeginUpload, http: Request, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    check_filename(body.fileName, "fileName")
    with Session(state.database) as session:
        transfer, secret = transfers.issue(session, tenant, TransferKind.DATASET, body.fileName)
        url = transfers.url(http, transfer, secret, transfer_routes.DATA)
        return {"presignedUrl": url, "uploadToken": transfer.id, "requiredHeaders": {}}


@router.put("/v2/datasets/upload")
def complete_upload(body: CompleteUpload, tenant: ForAdapters, state: StateDep) -> dict[str, Any]:
    """Checked here: mistakes are told with their lines."""
    with Session(state.database, expire_on_commit=False) as session:
        transfer = transfers.need(session, tenant, body.uploadToken, TransferKind.DATASET)
    path = state.staging.path(transfer.id, transfer_routes.DATA)
    if not path.is_file():
        raise bad_request("The file was not uploaded.")
    row = datasets.add(state, tenant, body.name, PurePath(transfer.target).name, Path(path))
    transfers.end(state, transfer.id)
    return _shown(row)


@router.get("/v1/datasets/name/{name}")
@router.get("/datasets/name/{name}", include_in_schema=False)
def by_name(
    name: str,
    tenant: ForLooking,
    state: StateDep,
    connectionName: Annotated[str, Query(max_length=128)] = _CONNECTION,
) -> dict[str, Any]:
    if connectionName != _CONNECTION:
        message = f"There is no connection {connectionName!r}: datasets are files, {_CONNECTION!r}."
        raise ApiError(404, "not_found", message)
    with Session(state.database) as session:
        return _shown(datasets.need(session, tenant, name))


@router.get("/v2/datasets/{dataset}/download-link")
def download_link(
    dataset: str, http: Request, tenant: ForAdapters, state: StateDep
) -> dict[str, str]:
    """By id or name: a URL that needs no key."""
    with Session(state.database, expire_on_commit=False) as session:
        row = datasets.need(session, tenant, dataset)
        filename = session.get_one(StoredFile, row.file_id).filename
        transfer, secret = transfers.issue(session, tenant, TransferKind.FILE, row.file_id)
        url = transfers.url(http, transfer, secret, transfer_routes.DATA)
        return {"url": url, "fileExtension": "csv" if is_csv(filename) else "jsonl"}


def _shown(row: Dataset) -> dict[str, Any]:
    return {
        "uuid": row.id,
        "name": row.name,
        "connection": {"type": "file", "name": _CONNECTION},
        "status": "connected",
        "lastError": None,
    }
