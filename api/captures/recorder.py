"""Stores exchanges, and asks shadows the same: beside the requests, never in their way.

It is a sample: what comes while the database is away, or faster than it can be kept, is dropped.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col, select

from api.errors import ApiError
from api.requests.admission import admit
from api.requests.collect import collect
from api.requests.exchange import Exchange
from api.requests.terms import Terms
from api.state import State
from loraplex.broker.connection import Unavailable
from loraplex.entities import CapturedExchange
from loraplex.redaction import Redact

log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_MOST_WAITING = 1000
_SHADOWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Answered:
    exchange: Exchange
    shadows: dict[str, str]


class Recorder:
    def __init__(self, state: State, redact: Redact) -> None:
        self._state = state
        self._redact = redact
        self._rows: list[Answered] = []
        self._shadows: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For as long as the process lives."""
        try:
            while True:
                await self._wait()
                await self._store()
        finally:
            for task in self._shadows:
                task.cancel()
            await asyncio.gather(*self._shadows, return_exceptions=True)
            await asyncio.shield(self._store())

    async def _wait(self) -> None:
        """For the next one, and those that come soon after it."""
        self._take(await self._state.exchanges.get())
        await asyncio.sleep(_FLUSH_S)
        while not self._state.exchanges.empty():
            self._take(self._state.exchanges.get_nowait())
        while not self._rows and self._shadows:
            await asyncio.wait(self._shadows, return_when=asyncio.FIRST_COMPLETED)

    def _take(self, exchange: Exchange) -> None:
        if not exchange.shadow:
            self._rows.append(Answered(exchange, {}))
        elif len(self._shadows) < _SHADOWS_AT_ONCE:
            task = asyncio.create_task(self._shadow(exchange))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    async def _shadow(self, exchange: Exchange) -> None:
        """Only where nothing waits: its answer is for nobody."""
        text: list[str] = []
        state, deployment = self._state, exchange.deployment
        model = f"{deployment.name}:{exchange.shadow}"
        request = replace(exchange.request, model=model, streamed=False, user="")
        terms = Terms(state.settings.request_timeout_s, 0.0)
        try:
            if (await state.queues.load(deployment.lane)).waiting:
                return
            admitted = await admit(state, exchange.caller, terms, request, background=True)
            await collect(state, admitted, lambda _, piece: text.append(piece.text))
        except (ApiError, *Unavailable) as failed:
            log.info("shadow %s of %s has no answer: %s", exchange.shadow, deployment.name, failed)
        except Exception:
            log.exception("shadow %s of %s failed", exchange.shadow, deployment.name)
        else:
            self._rows.append(Answered(exchange, {exchange.shadow: "".join(text)}))

    async def _store(self) -> None:
        rows, self._rows = self._rows[:_MOST_WAITING], []
        try:
            if rows:
                await run_in_threadpool(self._insert, rows)
        except SQLAlchemyError as away:
            log.warning("%d exchanges are not kept: %s", len(rows), away)

    def _insert(self, answered: Sequence[Answered]) -> None:
        found = [row for each in answered if (row := self._row(each)) is not None]
        with Session(self._state.database) as session:
            session.add_all(found)
            session.flush()
            for tenant, deployment in {(row.tenant_id, row.deployment_id) for row in found}:
                _forget_oldest(session, tenant, deployment, self._state.settings.capture_most)
            session.commit()

    def _row(self, answered: Answered) -> CapturedExchange | None:
        exchange = answered.exchange
        facts = {
            "asked": exchange.asked,
            "answer": exchange.answer,
            "shadows": answered.shadows,
            "adapter": exchange.adapter,
            "deployment": exchange.deployment.name,
        }
        try:
            kept = self._redact(facts)
            if kept is None:
                return None
            return CapturedExchange(
                tenant_id=exchange.caller.tenant,
                deployment_id=exchange.deployment.id,
                adapter=exchange.adapter,
                asked=kept["asked"],
                answer=kept["answer"],
                shadows=kept["shadows"],
            )
        except Exception:  # the operator's own function
            log.exception("LORAPLEX_REDACT failed: the exchange is not kept")
            return None


def _forget_oldest(session: Session, tenant: str, deployment: str, most: int) -> None:
    of_it = (
        col(CapturedExchange.tenant_id) == tenant,
        col(CapturedExchange.deployment_id) == deployment,
    )
    newest = select(CapturedExchange.id).where(*of_it).order_by(col(CapturedExchange.id).desc())
    last = session.exec(newest.offset(most).limit(1)).first()
    if last is not None:
        session.execute(delete(CapturedExchange).where(*of_it, col(CapturedExchange.id) <= last))
