"""/v1/files: what batches read and write, and training data."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from sqlalchemy import func
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.registry.stored_files import check_filename, check_storage, check_unneeded, storing
from api.security import ForInference
from api.state import State, StateDep
from loraplex.entities import Dataset, StoredFile
from loraplex.store.files import blocks_of

router = APIRouter(prefix="/files", tags=["files"])

_MOST = 10_000  # of a tenant

Purpose = Literal["batch", "fine-tune"]


@router.post("")
def create(
    file: UploadFile, purpose: Annotated[Purpose, Form()], tenant: ForInference, state: StateDep
) -> dict[str, Any]:
    """Store a file; JSON lines for both purposes."""
    name = file.filename or "file"
    check_filename(name, "file")

    with Session(state.database, expire_on_commit=False) as session:
        count = select(func.count()).where(col(StoredFile.tenant_id) == tenant)
        if session.exec(count).one() >= _MOST:
            raise ApiError(409, "too_many", f"A tenant has at most {_MOST} files. Delete some.")
        check_storage(session, state, tenant, file.size or 0)
    row = StoredFile(tenant_id=tenant, filename=name, purpose=purpose, bytes=0)
    row.bytes = state.files.put(row.id, blocks_of(file.file))
    if not row.bytes:
        state.files.delete(row.id)
        raise bad_request("The file is empty.", "file")
    with storing(state, row) as session:
        session.add(row)
        session.commit()
        return shown(row)


@router.get("")
def list_files(
    tenant: ForInference,
    state: StateDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_MOST)] = _MOST,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    with Session(state.database) as session:
        rows = [row for row in session.exec(_of(tenant)) if purpose in (None, row.purpose)]
        return page([shown(row) for row in rows], limit, after, reverse=order == "desc")


@router.get("/{file_id}")
def retrieve(file_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    return shown(need_file(state, tenant, file_id))


@router.get("/{file_id}/content")
def content(file_id: str, tenant: ForInference, state: StateDep) -> StreamingResponse:
    row = need_file(state, tenant, file_id)
    blocks = state.files.blocks(row.id)
    return StreamingResponse(blocks, media_type="application/octet-stream")


@router.delete("/{file_id}")
def delete(file_id: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """Refused while a batch or a training reads it, or a dataset is made of it."""
    row = need_file(state, tenant, file_id)
    with Session(state.database) as session:
        check_unneeded(session, row.id)
        dataset = session.exec(select(Dataset.name).where(Dataset.file_id == row.id)).first()
        if dataset is not None:
            raise ApiError(409, "conflict", f"It is the dataset {dataset!r}: delete that.")
        session.delete(row)
        session.commit()
    state.files.delete(row.id)
    return {"id": row.id, "object": "file", "deleted": True}


def need_file(state: State, tenant: str, file_id: str, param: str | None = None) -> StoredFile:
    """Raises ApiError 404."""
    with Session(state.database, expire_on_commit=False) as session:
        row = session.get(StoredFile, file_id)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no file {file_id!r}.", param=param)
    return row


def add_file(
    state: State, tenant: str, file_id: str, name: str, purpose: str, blocks: Iterator[bytes]
) -> str:
    """A file that the platform makes; made again it is the same one. Its id."""
    row = StoredFile(id=file_id, tenant_id=tenant, filename=name, purpose=purpose, bytes=0)
    row.bytes = state.files.put(row.id, blocks)
    with Session(state.database, expire_on_commit=False) as session:
        session.merge(row)
        session.commit()
    return row.id


def page(
    rows: list[dict[str, Any]], limit: int, after: str | None, *, reverse: bool
) -> dict[str, Any]:
    """A list as OpenAI's clients page through it. `rows`: oldest first. Raises ApiError 404."""
    rows = rows[::-1] if reverse else rows
    if after is not None:
        ids = [row["id"] for row in rows]
        if after not in ids:
            raise ApiError(404, "not_found", f"after: there is no {after!r}.", param="after")
        rows = rows[ids.index(after) + 1 :]
    shown_rows = rows[:limit]
    ends = (shown_rows[0]["id"], shown_rows[-1]["id"]) if shown_rows else (None, None)
    more = len(rows) > limit
    return {
        "object": "list",
        "data": shown_rows,
        "first_id": ends[0],
        "last_id": ends[1],
        "has_more": more,
    }


def shown(row: StoredFile) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "file",
        "bytes": row.bytes,
        "created_at": int(row.created_at.timestamp()),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "expires_at": None,
    }


def _of(tenant: str) -> Any:
    return (
        select(StoredFile)
        .where(StoredFile.tenant_id == tenant)
        .order_by(col(StoredFile.created_at), col(StoredFile.id))
    )
