"""Stores exchanges, and asks shadows the same: beside the requests, never in their way.

It is a sample: what comes while the database is away, or faster than it can be kept, is dropped.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict
from sqlalchemy import delete
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.requests.admission import admit
from api.requests.collect import collect
from api.requests.exchange import Exchange
from api.requests.terms import Terms
from api.state import State
from api.text import Text, storable
from loraplex.broker.connection import Unavailable
from loraplex.entities import CapturedExchange
from loraplex.keys import Lane
from loraplex.redaction import Redact

log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_MOST_WAITING = 1000
_SHADOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Answered:
    """`shadow`: what the other version says; None: it wasn't asked, or has no answer."""

    exchange: Exchange
    shadow: str | None = None


class Redacted(BaseModel):
    """What an operator's function may give back."""

    model_config = ConfigDict(extra="ignore")
    asked: dict[str, Any]
    answer: Text
    shadows: dict[str, Text]


class Recorder:
    def __init__(self, state: State, redact: Redact) -> None:
        self._state = state
        self._redact = redact
        self._answered: list[Answered] = []
        self._shadows: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For as long as the process lives."""
        storing = asyncio.create_task(self._store_for_ever())
        try:
            while True:
                self._take(await self._state.exchanges.get())
        finally:
            for task in (storing, *self._shadows):
                task.cancel()
            await asyncio.gather(storing, *self._shadows, return_exceptions=True)
            await asyncio.shield(self._store())

    def _take(self, exchange: Exchange) -> None:
        if exchange.shadow and len(self._shadows) < _SHADOWS_AT_ONCE:
            task = asyncio.create_task(self._shadow(exchange))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        else:
            self._add(Answered(exchange))

    def _add(self, answered: Answered) -> None:
        wanted = answered.exchange.kept or answered.shadow is not None
        if wanted and len(self._answered) < _MOST_WAITING:
            self._answered.append(answered)

    async def _shadow(self, exchange: Exchange) -> None:
        """Only where nothing waits: its answer is for nobody."""
        text: list[str] = []
        state, deployment = self._state, exchange.deployment
        model = f"{deployment.name}:{exchange.shadow}"
        request = replace(exchange.request, model=model, streamed=False, user="")
        terms = Terms(state.settings.request_timeout_s, 0.0)
        answer = None
        try:
            if await self._idle(deployment.lane):
                admitted = await admit(state, exchange.caller, terms, request, background=True)
                await collect(state, admitted, lambda _, piece: text.append(piece.text))
                answer = "".join(text)
        except (ApiError, *Unavailable) as failed:
            log.info("shadow %s of %s has no answer: %s", exchange.shadow, deployment.name, failed)
        except Exception:
            log.exception("shadow %s of %s failed", exchange.shadow, deployment.name)
        finally:
            self._add(Answered(exchange, answer))

    async def _idle(self, lane: Lane) -> bool:
        """By a second look, too: the first may be from when what has just been answered waited."""
        queues = self._state.queues
        if not (await queues.load(lane)).waiting:
            return True
        return not (await queues.load(lane, since=time.monotonic())).waiting

    async def _store_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self._store()

    async def _store(self) -> None:
        answered, self._answered = self._answered, []
        if not answered:
            return
        try:
            await run_in_threadpool(self._insert, answered)
        except Exception:  # the database is away, say: the next ones may be kept
            log.exception("%d exchanges are not kept", len(answered))

    def _insert(self, answered: Sequence[Answered]) -> None:
        found = [row for each in answered if (row := self._row(each)) is not None]
        most = self._state.settings.capture_most
        with Session(self._state.database) as session:
            session.add_all(found)
            session.flush()
            for tenant, deployment in {(row.tenant_id, row.deployment_id) for row in found}:
                _forget_oldest(session, tenant, deployment, most)
            session.commit()

    def _row(self, answered: Answered) -> CapturedExchange | None:
        exchange, shadow = answered.exchange, answered.shadow
        facts = {
            "asked": exchange.asked,
            "answer": exchange.answer,
            "shadows": {exchange.shadow: shadow} if shadow is not None else {},
            "adapter": exchange.adapter,
            "deployment": exchange.deployment.name,
        }
        try:
            given = self._redact(facts)
            if given is None:
                return None
            kept = Redacted.model_validate(given)
            if not storable(kept.asked):
                raise ValueError("asked: it can't be written as JSON")
        except Exception:  # the operator's own function
            log.exception("LORAPLEX_REDACT failed: the exchange is not kept")
            return None
        return CapturedExchange(
            tenant_id=exchange.caller.tenant,
            deployment_id=exchange.deployment.id,
            adapter=exchange.adapter,
            asked=kept.asked,
            answer=kept.answer,
            shadows=kept.shadows,
        )


def _forget_oldest(session: Session, tenant: str, deployment: str, most: int) -> None:
    of_it = (
        col(CapturedExchange.tenant_id) == tenant,
        col(CapturedExchange.deployment_id) == deployment,
    )
    newest = select(CapturedExchange.id).where(*of_it).order_by(col(CapturedExchange.id).desc())
    last = session.exec(newest.offset(most).limit(1)).first()
    if last is not None:
        session.execute(delete(CapturedExchange).where(*of_it, col(CapturedExchange.id) <= last))
