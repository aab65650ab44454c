"""/api/v1/live: what changes, as it changes: one stream for all that a console shows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from sqlmodel import Session
from sse_starlette import ServerSentEvent

from api.control.looks import EACH_S, Happened, Look, Looks
from api.errors import DATABASE_AWAY, ApiError
from api.requests.event_stream import following
from api.requests.resolve import need_deployment
from api.security import ForLooking, Needs, caller_of
from api.state import State, StateDep
from loraplex.broker.connection import Unavailable
from loraplex.scopes import Scope

router = APIRouter(tags=["deployments"])

_for_charts = Needs(Scope.DEPLOYMENTS)


@router.get("/live")
async def live(
    http: Request,
    tenant: ForLooking,
    state: StateDep,
    deployment: Annotated[
        str | None, Query(max_length=63, description="One's own, whose chart points come, too.")
    ] = None,
) -> Response:
    """Server-sent events: `deployments` (as the list has them) at first and when one came or went,
    `changed`, those of them that are different; `jobs` (fine-tuning jobs under way) and `rates` (of
    one's deployments that have work: the latest chart point; null: no scaler looks, or the key
    lacks the charts' scope), as a whole; `events`, of one's deployments, after `Last-Event-ID`
    (some before it may come again); `points`, the latest of a deployment's charts."""
    watched = None
    if deployment is not None:
        await _for_charts(http)
        watched = await run_in_threadpool(_id_of, state, tenant, deployment)
    last = http.headers.get("last-event-id", "")
    after = int(last) if last.isdecimal() and len(last) < 19 else None
    looks: Looks = http.app.state.looks
    looks.need_room(tenant)
    rated = _for_charts.met_by(caller_of(http))
    viewer = _Viewer(looks, http.state.authorization, tenant, rated, watched, after)
    return following(state.settings, viewer.stream())


def _id_of(state: State, tenant: str, name: str) -> str:
    with Session(state.database) as session:
        return need_deployment(session, tenant, name).id


@dataclass
class _Viewer:
    looks: Looks
    key: str  # as it was sent: it may be revoked meanwhile
    tenant: str
    rated: bool  # whether rates are told: they are of the charts
    watched: str | None  # deployment
    after: int | None  # id of an event: later ones are looked at
    _told: dict[str, str] = field(default_factory=dict)
    _told_of: dict[str, str] | None = None  # by deployment
    _told_events: set[int] = field(default_factory=set)

    async def stream(self) -> AsyncIterator[ServerSentEvent]:
        with self.looks.viewing(self.tenant):
            while True:
                try:
                    await self.looks.check(self.key)
                    found = await self._news()
                except ApiError as ended:
                    yield ServerSentEvent(event="ended", data=ended.message)
                    return
                except (*Unavailable, *DATABASE_AWAY):
                    found = []
                for event in found:
                    yield event
                await asyncio.sleep(EACH_S)

    async def _news(self) -> list[ServerSentEvent]:
        look = await self.looks.look(self.tenant)
        found = [
            *self._deployments(look),
            *self._changed("jobs", look.jobs),
            *self._changed("rates", look.rates if self.rated else "null"),
        ]
        if self.watched is not None:
            found += self._changed("points", await self.looks.points(self.watched))
        return [*found, *self._events(await self.looks.events(self.tenant, self.after))]

    def _deployments(self, look: Look) -> Iterator[ServerSentEvent]:
        now, told, self._told_of = look.deployments, self._told_of, look.deployments
        if told is None or told.keys() != now.keys():
            yield ServerSentEvent(event="deployments", data=f"[{','.join(now.values())}]")
        elif changed := [now[name] for name in now if now[name] != told[name]]:
            yield ServerSentEvent(event="changed", data=f"[{','.join(changed)}]")

    def _changed(self, event: str, data: str) -> Iterator[ServerSentEvent]:
        if self._told.get(event) != data:
            self._told[event] = data
            yield ServerSentEvent(event=event, data=data)

    def _events(self, happened: Happened) -> Iterator[ServerSentEvent]:
        self.after = happened.latest
        fresh = [event for number, event in happened.events if number not in self._told_events]
        self._told_events = {number for number, _ in happened.events}
        if fresh:
            data = msgspec.json.encode(fresh).decode()
            yield ServerSentEvent(event="events", id=str(self.after), data=data)
