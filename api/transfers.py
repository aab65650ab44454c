"""/transfers: where files are sent to, and read from, by a URL that is itself the secret."""

import os
from collections.abc import AsyncIterator
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from api.errors import ApiError
from api.registry import transfers
from api.state import State, StateDep
from loraplex.entities import StoredFile, Transfer, TransferKind
from loraplex.store.peft_checks import CONFIG, WEIGHTS

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
    path = state.staging.path(row.id, name)
    partial = path.with_suffix(f".{os.urandom(4).hex()}.part")
    try:
        with partial.open("wb") as file:
            async for block in _kept(http.stream(), keep=name != PICKLE):
                await run_in_threadpool(file.write, block)
        size = partial.stat().st_size
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return {"bytes": size}


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


async def _kept(blocks: AsyncIterator[bytes], *, keep: bool) -> AsyncIterator[bytes]:
    async for block in blocks:
        if keep:
            yield block
