"""/transfers: where files are sent to, and read from, by a URL that is itself the secret."""

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlmodel import Session
from starlette.requests import ClientDisconnect

from api.errors import ApiError, bad_request
from api.registry import transfers
from api.registry.stored_files import check_storage
from api.state import State, StateDep
from loraplex.entities import StoredFile, Transfer, TransferKind
from loraplex.locked import is_locked
from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS

router = APIRouter(prefix="/transfers", include_in_schema=False)

PICKLE = "adapter_model.bin"  # taken, so that its sender can be told in words that it isn't
DATA = "data"
_NAMES = {TransferKind.ADAPTER: (CONFIG, WEIGHTS, PICKLE), TransferKind.DATASET: (DATA,)}


@router.put("/{transfer}/{secret}/{name}")
async def put(
    transfer: str, secret: str, name: str, http: Request, state: StateDep
) -> dict[str, int]:
    """Bytes that were stored."""
    row = await run_in_threadpool(_redeem, state, transfer, secret)
    if name not in _NAMES.get(TransferKind(row.kind), ()):
        raise ApiError(404, "not_found", "This URL is not valid, or not any more.")
    most = MAX_CONFIG if name == CONFIG else state.settings.max_upload_bytes
    await run_in_threadpool(_check_room, state, row, _announced(http, most))
    path = state.staging.path(row.id, name)
    partial = path.with_suffix(".part")
    size = 0
    with partial.open("ab") as file:
        if not is_locked(file.fileno()):
            raise ApiError(409, "conflict", f"{name} is being sent already.")
        file.truncate(0)
        try:
            async for block in http.stream():
                size += len(block)
                if size > most:
                    raise ApiError(413, "body_too_large", f"{name} has over {most} bytes.")
                if name != PICKLE:
                    await run_in_threadpool(file.write, block)
        except ClientDisconnect as gone:
            raise bad_request(f"{name} broke off. Send it again.") from gone
        partial.rename(path)
    return {"bytes": path.stat().st_size}


@router.get("/{transfer}/{secret}/{name}")
def get(transfer: str, secret: str, name: str, state: StateDep) -> StreamingResponse:
    """A file that its owner has asked a URL for."""
    row = _redeem(state, transfer, secret)
    with Session(state.database) as session:
        file = session.get(StoredFile, row.target) if row.kind == TransferKind.FILE else None
        if file is None:
            raise ApiError(404, "not_found", "This URL is not valid, or not any more.")
        shown = {"content-disposition": f"attachment; filename*=utf-8''{quote(file.filename)}"}
        blocks = state.files.blocks(file.id)
    return StreamingResponse(blocks, media_type="application/octet-stream", headers=shown)


def _redeem(state: State, transfer: str, secret: str) -> Transfer:
    with Session(state.database, expire_on_commit=False) as session:
        return transfers.redeem(session, transfer, secret)


def _announced(http: Request, most: int) -> int:
    """Bytes that are to come, at most."""
    given = http.headers.get("content-length", "")
    return min(int(given), most) if given.isdecimal() and len(given) < 19 else most


def _check_room(state: State, row: Transfer, more: int) -> None:
    """Raises ApiError 409 when the tenant's storage, with what it is sending, would be full."""
    with Session(state.database) as session:
        others = transfers.of_tenant(session, row.tenant_id)
        staged = sum(state.staging.size(each) for each in others)
        check_storage(session, state, row.tenant_id, staged + more)
