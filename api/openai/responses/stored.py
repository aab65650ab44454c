"""Responses that are kept: what was asked, what came, and what the next turn goes on from."""

import asyncio
import logging
from typing import Any

from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.errors import ApiError
from api.openai.responses.shape import PREFIX, ResponseWriter
from api.requests.admission import Admitted
from api.requests.collect import collect
from api.requests.comeback import come_back, find
from api.requests.terms import LastEvent
from api.state import State
from loraplex.broker.connection import Unavailable
from loraplex.entities import StoredResponse

log = logging.getLogger(__name__)

OVER = ("completed", "incomplete", "failed", "cancelled")
_NOT_KEPT = {"output": [], "incomplete_details": {"reason": "not_kept"}}
_tasks: set[asyncio.Task[Any]] = set()


async def begin(
    state: State, tenant: str, writer: ResponseWriter, context: list[dict[str, str]]
) -> None:
    """Keep a response that is on its way. `context`: the messages up to it."""
    body = writer.body("in_progress")
    row = StoredResponse(id=body["id"], tenant_id=tenant, body=body, context=context)

    def write() -> None:
        with Session(state.database) as session:
            if session.get(StoredResponse, row.id) is None:  # the same Idempotency-Key, else
                session.add(row)
                session.commit()

    await run_in_threadpool(write)


async def end(state: State, body: dict[str, Any]) -> None:
    def write() -> None:
        with Session(state.database) as session:
            row = session.get(StoredResponse, body["id"])
            if row is not None and row.body["status"] not in OVER:
                row.body = body
                session.add(row)
                session.commit()

    await run_in_threadpool(write)


async def need(state: State, tenant: str, response_id: str, param: str | None = None) -> Any:
    """Raises ApiError 404."""

    def read() -> StoredResponse | None:
        with Session(state.database, expire_on_commit=False) as session:
            return session.get(StoredResponse, response_id)

    row = await run_in_threadpool(read)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no response {response_id!r}.", param=param)
    return row


async def current(state: State, row: StoredResponse) -> dict[str, Any]:
    """A response's body as it is now; one that has ended meanwhile is kept from now on."""
    body: dict[str, Any] = row.body
    if body["status"] in OVER:
        return body
    request = row.id.removeprefix(PREFIX)
    try:
        lane, recorded = await find(state, row.tenant_id, request)
    except ApiError:
        body = body | {"status": "incomplete"} | _NOT_KEPT
        await end(state, body)
        return body
    if recorded.stopped:
        body = body | {"status": "cancelled"}
        await end(state, body)
        return body
    stage = await state.broker.state_of(lane, recorded.entries)
    if stage != "ended":
        return body | {"status": "queued" if stage == "queued" else "in_progress"}
    admitted = await come_back(state, row.tenant_id, LastEvent(request, []))
    return await finish(state, admitted, ResponseWriter(admitted, facts_of(body)))


async def finish(state: State, admitted: Admitted, writer: ResponseWriter) -> dict[str, Any]:
    """Wait for its end and keep it."""
    try:
        await collect(state, admitted, writer.add)
        body = writer.body()
    except ApiError as error:
        if error.code == "cancelled":
            body = writer.body("cancelled")
        elif error.code in ("answer_expired", "request_not_found"):
            body = writer.body("incomplete") | _NOT_KEPT
        else:
            body = writer.body("failed", {"code": error.code, "message": error.message})
    await end(state, body)
    return body


def in_background(work: Any) -> None:
    """A coroutine that nobody waits for; what it fails at is logged."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_ended)


def _ended(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    failed = None if task.cancelled() else task.exception()
    if isinstance(failed, Unavailable):
        log.warning("a response is not kept yet: %s", failed)
    elif failed is not None:
        log.error("a response is not kept yet", exc_info=failed)


def facts_of(body: dict[str, Any]) -> dict[str, Any]:
    made = ("id", "object", "created_at", "status", "error", "incomplete_details", "model")
    return {k: v for k, v in body.items() if k not in (*made, "output", "usage")}
