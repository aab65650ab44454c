"""/api/v1/live: what changes, as it changes: one stream for all that a console shows."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlmodel import Session, col, select
from sse_starlette import ServerSentEvent

from api.control.deployment_schemas import EventOut
from api.control.deployment_view import show_all
from api.errors import ApiError
from api.requests.event_stream import following
from api.requests.resolve import need_deployment, usable_by
from api.security import ForLooking
from api.state import State, StateDep
from loraplex import chart_points, charts
from loraplex.broker.connection import Unavailable
from loraplex.entities import UNFINISHED, Deployment, DeploymentEvent, TrainingJob

router = APIRouter(tags=["deployments"])

_EACH_S = 1.0
_MOST_EVENTS = 200  # a look
_POINTS = 4  # the latest: they change while answers end
_JOB = ("id", "state", "step", "total_steps", "loss", "validation_loss", "left_s", "yielding")


@router.get("/live")
async def live(
    http: Request,
    tenant: ForLooking,
    state: StateDep,
    deployment: Annotated[
        str | None, Query(max_length=63, description="One's own, whose chart points come, too.")
    ] = None,
) -> Response:
    """Server-sent events: `deployments` (as the list has them), `jobs` (fine-tuning jobs under
    way), `rates` (of one's deployments: the latest chart point), each as a whole when something has
    changed; `events`, new ones of one's deployments, after `Last-Event-ID`; `points`, the latest
    of a deployment's charts."""
    watched = await run_in_threadpool(_id_of, state, tenant, deployment) if deployment else None

    last = http.headers.get("last-event-id", "")
    key = http.state.authorization
    news = _News(state, key, tenant, watched, int(last) if last.isdecimal() else None)
    return following(state.settings, news.stream())


def _id_of(state: State, tenant: str, name: str) -> str:
    with Session(state.database) as session:
        return need_deployment(session, tenant, name).id


@dataclass
class _News:
    state: State
    key: str  # as it was sent: it may be revoked meanwhile
    tenant: str
    watched: str | None  # deployment
    event: int | None  # id of the latest one that was told
    _told: dict[str, bytes] = field(default_factory=dict)

    async def stream(self) -> AsyncIterator[ServerSentEvent]:
        while True:
            try:
                await run_in_threadpool(self.state.keyring.find, self.key)
                found = await self._look()
            except ApiError as ended:
                yield ServerSentEvent(event="ended", data=ended.message)
                return
            except Unavailable:
                found = []
            for event in found:
                yield event
            await asyncio.sleep(_EACH_S)

    async def _look(self) -> list[ServerSentEvent]:
        rows, events, jobs, rates, points = await run_in_threadpool(self._read)
        shown = [each.model_dump(mode="json") for each in await show_all(self.state, rows)]
        found = [
            *self._changed("deployments", shown),
            *self._changed("jobs", jobs),
            *self._changed("rates", rates),
        ]
        if points is not None:
            found += self._changed("points", points)
        self.event = events[-1]["id"] if events else self.event or 0
        if events:
            data = msgspec.json.encode(events).decode()
            found.append(ServerSentEvent(event="events", id=str(self.event), data=data))
        return found

    def _changed(self, event: str, value: Any) -> Iterator[ServerSentEvent]:
        data = msgspec.json.encode(value)
        if self._told.get(event) != data:
            self._told[event] = data
            yield ServerSentEvent(event=event, data=data.decode())

    def _read(self) -> tuple[list[Deployment], list[dict[str, Any]], list[Any], Any, Any]:
        with Session(self.state.database, expire_on_commit=False) as session:
            rows = usable_by(session, self.tenant)
            events = self._events(session)
            mine = (TrainingJob.tenant_id == self.tenant, col(TrainingJob.state).in_(UNFINISHED))
            jobs = [
                job.model_dump(include=set(_JOB))
                for job in session.exec(select(TrainingJob).where(*mine))
            ]
            now, step_s, points = int(time.time()), charts.FINE_S, None
            names = {row.id: row.name for row in rows if row.tenant_id == self.tenant}
            found = chart_points.latest(session, list(names), now)
            rates = {names[each]: values for each, values in found.items()}
            if self.watched is not None:
                since = now - _POINTS * step_s
                points = chart_points.read(session, self.watched, since, now, step_s)
        return rows, events, jobs, rates, points

    def _events(self, session: Session) -> list[dict[str, Any]]:
        number = col(DeploymentEvent.id)
        wanted = (
            select(DeploymentEvent, Deployment.name)
            .where(DeploymentEvent.deployment_id == Deployment.id)
            .where(Deployment.tenant_id == self.tenant)
            .limit(_MOST_EVENTS)
        )
        if self.event is None:
            found = session.exec(wanted.order_by(number.desc())).all()[::-1]
        else:
            found = session.exec(wanted.where(number > self.event).order_by(number)).all()
        return [
            EventOut.model_validate(row, from_attributes=True).model_dump(mode="json")
            | {"deployment": name}
            for row, name in found
        ]
