"""/api/v1/datasets: training data, checked when it comes."""

import shutil
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlmodel import Session

from api.registry import datasets
from api.registry.stored_files import check_filename
from api.security import ForAdapters, ForLooking
from api.state import StateDep
from loraplex.entities import Dataset

router = APIRouter(prefix="/datasets", tags=["datasets"])


class DatasetOut(BaseModel):
    id: str
    name: str
    file_id: str
    columns: list[str]
    rows: int
    created_at: datetime


@router.post("", status_code=201)
def add(
    file: UploadFile, name: Annotated[str, Form()], tenant: ForAdapters, state: StateDep
) -> DatasetOut:
    """JSON lines, or CSV where the file's name ends so. Rows: `prompt` and `completion`, or
    `messages`, or `text`; mistakes are told with their lines."""
    filename = Path(file.filename or "data.jsonl").name
    check_filename(filename, "file")
    with tempfile.NamedTemporaryFile() as copy:
        shutil.copyfileobj(file.file, copy)
        copy.flush()
        return _shown(datasets.add(state, tenant, name, filename, Path(copy.name)))


@router.get("")
def list_datasets(tenant: ForLooking, state: StateDep) -> dict[str, list[DatasetOut]]:
    with Session(state.database) as session:
        return {"data": [_shown(row) for row in datasets.of_tenant(session, tenant)]}


@router.get("/{name}")
def get(name: str, tenant: ForLooking, state: StateDep) -> DatasetOut:
    with Session(state.database) as session:
        return _shown(datasets.need(session, tenant, name))


@router.get("/{name}/content")
def content(name: str, tenant: ForAdapters, state: StateDep) -> StreamingResponse:
    with Session(state.database) as session:
        blocks = state.files.blocks(datasets.need(session, tenant, name).file_id)
    return StreamingResponse(blocks, media_type="application/octet-stream")


@router.delete("/{name}", status_code=204)
def delete(name: str, tenant: ForAdapters, state: StateDep) -> None:
    with Session(state.database) as session:
        datasets.delete(state, session, datasets.need(session, tenant, name))


def _shown(row: Dataset) -> DatasetOut:
    return DatasetOut(**row.model_dump(exclude={"tenant_id"}))
