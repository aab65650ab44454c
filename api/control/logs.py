"""/api/v1/deployments/{name}/logs: what its replicas log; and, in development, their deaths."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel
from sqlmodel import Session
from sse_starlette import ServerSentEvent

from api.errors import ApiError
from api.requests.event_stream import following
from api.requests.lanes import lanes_of
from api.requests.resolve import need_deployment
from api.security import ForDeployments
from api.state import State, StateDep
from loraplex.broker.interface import LogLine
from loraplex.broker.stream_ids import in_order
from loraplex.entities import Replica
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState

router = APIRouter(prefix="/deployments", tags=["deployments"])

_LOOK_EACH_S = 1.0
_PAGE = 1000
_ENTRY = r"^[0-9]{1,20}-[0-9]{1,20}$"


class LogLineOut(BaseModel):
    id: str
    replica: str
    text: str


@router.get("/{name}/logs", response_model=dict[str, list[LogLineOut]])
async def logs(
    name: str,
    http: Request,
    tenant: ForDeployments,
    state: StateDep,
    tail: Annotated[int, Query(ge=1, le=_PAGE, description="Lines from the end.")] = 200,
    after: Annotated[str, Query(pattern=f"{_ENTRY}|^$", description="Those after this id.")] = "",
    stream: Annotated[bool, Query(description="As events, and go on.")] = False,
) -> Response | dict[str, list[LogLineOut]]:
    """Lines of all its replicas, oldest first; the latest 2,000 or so are kept. Prompts and answers
    are never logged."""
    lanes = await run_in_threadpool(_lanes, state, tenant, name)
    if not stream:
        return {"data": [_out(line) for line in await _read(state, lanes, after, tail)]}
    key = http.state.authorization

    async def follow() -> AsyncIterator[ServerSentEvent]:
        latest = after
        while True:
            try:  # it may be revoked, or the deployment deleted, meanwhile
                await run_in_threadpool(state.keyring.find, key)
                now = await run_in_threadpool(_lanes, state, tenant, name)
            except ApiError as ended:
                yield ServerSentEvent(event="ended", data=ended.message)
                return
            for line in await _read(state, now, latest, _PAGE if latest else tail):
                latest = line.entry
                yield ServerSentEvent(id=line.entry, data=_out(line).model_dump_json())
            latest = latest or "0-0"
            await asyncio.sleep(_LOOK_EACH_S)

    return following(state.settings, follow())


@router.post("/{name}/replicas/{replica}/kill", status_code=202)
async def kill(name: str, replica: str, tenant: ForDeployments, state: StateDep) -> dict[str, str]:
    """Let a replica die at once, as by accident (LORAPLEX_DEV): its requests go on at another."""
    if not state.settings.dev:
        raise ApiError(403, "not_in_development", "Replicas may be killed with LORAPLEX_DEV only.")

    def check() -> None:
        with Session(state.database) as session:
            deployment = need_deployment(session, tenant, name)
            row = session.get(Replica, replica)
            mine = row is not None and row.deployment_id == deployment.id
            if not mine or row is None or row.state == ReplicaState.GONE:
                message = f"Deployment {name!r} has no living replica {replica!r}."
                raise ApiError(404, "not_found", message)

    await run_in_threadpool(check)
    await state.broker.ask_kill(replica)
    return {"replica": replica, "status": "is killed"}


def _lanes(state: State, tenant: str, name: str) -> list[Lane]:
    with Session(state.database) as session:
        return lanes_of(state, need_deployment(session, tenant, name))


async def _read(state: State, lanes: list[Lane], after: str, most: int) -> list[LogLine]:
    """Of all lanes by time: the first ones after an id, or the latest of all."""
    found = [line for lane in lanes for line in await state.broker.logs(lane, after, most)]
    found.sort(key=lambda line: in_order(line.entry))
    return found[:most] if after else found[-most:]


def _out(line: LogLine) -> LogLineOut:
    return LogLineOut(id=line.entry, replica=line.replica, text=line.text)
