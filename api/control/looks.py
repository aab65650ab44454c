"""What those who watch a tenant's deployments are told, found out once a second for all of them."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from async_lru import alru_cache
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func
from sqlmodel import Session, col, select

from api.control.deployment_schemas import EventOut
from api.control.deployment_view import Seen, seen, shown
from api.errors import ApiError
from api.requests.resolve import usable_by
from api.state import State
from loraplex import chart_points, charts
from loraplex.entities import EVENT_OVERLAP, UNFINISHED, Deployment, DeploymentEvent, TrainingJob

EACH_S = 1.0
_FRESH_S = 0.9 * EACH_S  # who comes a little early isn't told the same again
_MOST_KNOWN = 4096
_MOST_VIEWERS = 200  # of a tenant, at a process
_MOST_EVENTS = 200
_POINTS = 4  # the latest: they change while answers end
_JOB = ("id", "state", "step", "total_steps", "loss", "validation_loss", "left_s", "yielding")


@dataclass(frozen=True, slots=True)
class Look:
    """JSON."""

    deployments: dict[str, str]  # by name
    jobs: str
    rates: str


@dataclass(frozen=True, slots=True)
class Happened:
    events: list[tuple[int, Any]]  # id, what is told of it; oldest first
    latest: int  # id, of whatever tenant's


class Looks:
    def __init__(self, state: State) -> None:
        self._state = state
        self._viewers: Counter[str] = Counter()
        shared = alru_cache(maxsize=_MOST_KNOWN, ttl=_FRESH_S)
        self.check = shared(self._check)
        self.look = shared(self._look)
        self.points = shared(self._points)
        self.events = shared(self._events)

    def need_room(self, tenant: str) -> None:
        """For another viewer. Raises ApiError 429."""
        if self._viewers[tenant] >= _MOST_VIEWERS:
            message = f"{_MOST_VIEWERS} live streams of this tenant are open here; close some."
            raise ApiError(429, "too_many_streams", message)

    @contextmanager
    def viewing(self, tenant: str) -> Iterator[None]:
        self._viewers[tenant] += 1
        try:
            yield
        finally:
            self._viewers[tenant] -= 1
            self._viewers += Counter()  # forgets zeros

    async def _check(self, key: str) -> None:
        """Raises ApiError 401: it was revoked, or has expired."""
        await run_in_threadpool(self._state.keyring.find, key)

    async def _look(self, tenant: str) -> Look:
        """Raises Unavailable."""
        rows, jobs, rates = await run_in_threadpool(self._read, tenant)
        found = await seen(self._state, rows)
        return await run_in_threadpool(_encoded, tenant, found, jobs, rates)

    def _read(self, tenant: str) -> tuple[Sequence[Deployment], list[Any], Any]:
        with Session(self._state.database, expire_on_commit=False) as session:
            rows = usable_by(session, tenant)
            mine = (TrainingJob.tenant_id == tenant, col(TrainingJob.state).in_(UNFINISHED))
            jobs = session.exec(select(TrainingJob).where(*mine)).all()
            names = {row.id: row.name for row in rows if row.tenant_id == tenant}
            found = chart_points.latest(session, list(names), time.time())
        told = [job.model_dump(include=set(_JOB)) for job in jobs]
        rates = found and {names[each]: values for each, values in found.items()}
        return rows, told, rates

    async def _points(self, deployment: str) -> str:
        """The latest of its charts, as JSON. `deployment`: its id."""

        def read() -> str:
            now, step_s = int(time.time()), charts.FINE_S
            with Session(self._state.database) as session:
                found = chart_points.read(session, deployment, now - _POINTS * step_s, now, step_s)
            return msgspec.json.encode(found).decode()

        return await run_in_threadpool(read)

    async def _events(self, tenant: str, after: int | None) -> Happened:
        """Those of a tenant's deployments after an id, and some before it; None: the latest."""
        return await run_in_threadpool(self._read_events, tenant, after)

    def _read_events(self, tenant: str, after: int | None) -> Happened:
        number = col(DeploymentEvent.id)
        wanted = (
            select(DeploymentEvent, Deployment.name)
            .where(DeploymentEvent.deployment_id == Deployment.id)
            .where(Deployment.tenant_id == tenant)
            .limit(_MOST_EVENTS)
        )
        with Session(self._state.database) as session:
            latest = session.scalar(select(func.max(number))) or 0
            if after is None:
                found = session.exec(wanted.order_by(number.desc())).all()[::-1]
            else:
                later = wanted.where(number > after - EVENT_OVERLAP).order_by(number)
                found = session.exec(later).all()
        if len(found) == _MOST_EVENTS and after is not None:
            latest = found[-1][0].id or 0  # there are more
        return Happened([_event(*row) for row in found], latest)


def _event(row: DeploymentEvent, name: str) -> tuple[int, Any]:
    event = EventOut.model_validate(row, from_attributes=True)
    return event.id, event.model_dump(mode="json") | {"deployment": name}


def _encoded(tenant: str, found: Seen, jobs: list[Any], rates: Any) -> Look:
    return Look(
        deployments={each.name: each.model_dump_json() for each in shown(found, tenant)},
        jobs=msgspec.json.encode(jobs).decode(),
        rates=msgspec.json.encode(rates).decode(),
    )
