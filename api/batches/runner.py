"""Runs batches in an API process.

A batch belongs to the process that has its lease; when that is gone, another one goes on where it
was: what is in the result files is done, and a request that still runs is waited for again.
"""

import asyncio
import logging
from collections import Counter

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import or_
from sqlmodel import Session, col, select

from api.batches.run import BatchRun, lease
from api.state import State
from loraplex.batch_status import UNDER_WAY
from loraplex.entities import Batch, utc_now
from loraplex.keys import Lane

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_MOST_BATCHES = 16  # at once in a process
_MOST_OF_A_TENANT = 4
_LOOKED_AT = 500


class BatchRunner:
    def __init__(self, state: State) -> None:
        self._state = state
        self._running: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._at_once: Counter[Lane] = Counter()

    async def run(self) -> None:
        """For as long as the process lives."""
        try:
            while True:
                try:
                    await self._look()
                except Exception:  # the outermost loop: the database is away, say
                    log.exception("batches: this look failed, trying again")
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            tasks = [task for _, task in self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        self._running = {n: each for n, each in self._running.items() if not each[1].done()}
        if len(self._running) >= _MOST_BATCHES:
            return
        for row in await run_in_threadpool(self._claim):
            run = BatchRun(self._state, row, self._at_once)
            self._running[row.id] = (run, asyncio.create_task(run.to_its_end()))

    def _claim(self) -> list[Batch]:
        """Those who have fewest here come first, then the oldest."""
        now = utc_now()
        free = or_(col(Batch.leased_until).is_(None), col(Batch.leased_until) < now)
        tenants = Counter(run.tenant for run, _ in self._running.values())
        claimed: list[Batch] = []
        with Session(self._state.database, expire_on_commit=False) as session:
            wanted = select(Batch).where(col(Batch.status).in_(UNDER_WAY), free)
            rows = list(session.exec(wanted.order_by(col(Batch.created_at)).limit(_LOOKED_AT)))
            while rows and len(self._running) + len(claimed) < _MOST_BATCHES:
                row = min(rows, key=lambda each: tenants[each.tenant_id])
                rows.remove(row)
                if tenants[row.tenant_id] >= _MOST_OF_A_TENANT:
                    break
                if lease(session, self._state, row.id, free):
                    session.refresh(row)
                    tenants[row.tenant_id] += 1
                    claimed.append(row)
        return claimed
