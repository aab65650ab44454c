"""Runs batches in an API process, as many requests at once as disturb nobody.

A batch belongs to the process that has its lease; when that is gone, another one goes on where it
was: what is in the result files is done, and a request that still runs is waited for again.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import CursorResult, or_, update
from sqlmodel import Session, col, select

from api.batches.lines import Line, LineError, check
from api.batches.request import answer, read
from api.batches.results import Results
from api.errors import ApiError
from api.openai.files import add_file
from api.requests.request import GenerationRequest
from api.state import State
from loraplex.batch_status import UNDER_WAY, BatchStatus
from loraplex.entities import Batch, new_id, utc_now
from loraplex.keys import Lane

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_LEASE_S = 15.0
_MOST_BATCHES = 8  # at once in a process
_MOST_AT_ONCE = 64  # requests of a batch
_ASK_AGAIN_S = 0.1  # whether there is room


class LeaseLost(Exception):
    """Another process runs it now."""


class BatchRunner:
    def __init__(self, state: State) -> None:
        self._state = state
        self._running: dict[str, asyncio.Task[None]] = {}

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
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self) -> None:
        self._running = {name: task for name, task in self._running.items() if not task.done()}
        if len(self._running) >= _MOST_BATCHES:
            return
        for row in await run_in_threadpool(self._claim, _MOST_BATCHES - len(self._running)):
            run = BatchRun(self._state, row)
            self._running[row.id] = asyncio.create_task(run.to_its_end())

    def _claim(self, most: int) -> list[Batch]:
        now = utc_now()
        free = or_(col(Batch.leased_until).is_(None), col(Batch.leased_until) < now)
        with Session(self._state.database, expire_on_commit=False) as session:
            wanted = select(Batch).where(col(Batch.status).in_(UNDER_WAY), free)
            rows = session.exec(wanted.order_by(col(Batch.created_at)).limit(most)).all()
            claimed = [row for row in rows if _lease(session, self._state, row.id, free)]
            for row in claimed:
                session.refresh(row)
        return claimed


def _lease(session: Session, state: State, batch: str, condition: Any) -> bool:
    until = utc_now() + timedelta(seconds=_LEASE_S)
    mine = (
        update(Batch)
        .where(col(Batch.id) == batch, condition)
        .values(runner=state.broker.api_id, leased_until=until)
    )
    won = cast(CursorResult[Any], session.execute(mine)).rowcount == 1
    session.commit()
    return won


class BatchRun:
    """One batch in this process' hands."""

    def __init__(self, state: State, row: Batch) -> None:
        self._state = state
        self._row = row
        self._until = row.expires_at.timestamp()
        self._cancelled = asyncio.Event()
        self._at_once: Counter[Lane] = Counter()

    async def to_its_end(self) -> None:
        keeper = asyncio.create_task(self._keep_lease())
        work = asyncio.create_task(self._work())
        try:
            done, _ = await asyncio.wait({keeper, work}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except LeaseLost:
            log.warning("batch=%s is another process' now", self._row.id)
        except Exception:
            log.exception("batch=%s stopped here; it is taken up again", self._row.id)
        finally:
            for task in (keeper, work):
                task.cancel()
            await asyncio.gather(keeper, work, return_exceptions=True)

    async def _keep_lease(self) -> None:
        while True:
            await run_in_threadpool(self._renew)
            await asyncio.sleep(_LOOK_EVERY_S)

    def _renew(self) -> None:
        mine = col(Batch.runner) == self._state.broker.api_id
        with Session(self._state.database) as session:
            if not _lease(session, self._state, self._row.id, mine):
                raise LeaseLost
            if session.get_one(Batch, self._row.id).status == BatchStatus.CANCELLING:
                self._cancelled.set()

    async def _work(self) -> None:
        folder = self._state.settings.files_dir / "batches" / self._row.id
        results = await run_in_threadpool(Results, folder)
        if self._row.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
            lines, errors = await run_in_threadpool(self._read)
            if errors:
                await self._move(BatchStatus.FAILED, errors=[_shown(each) for each in errors])
                return
            await self._move(BatchStatus.IN_PROGRESS, total=len(lines))
            await self._run_lines(lines, results)
            if not self._cancelled.is_set():
                await run_in_threadpool(_add_expired, lines, results)
                await self._move(BatchStatus.FINALIZING, **_counts(results))
        await self._finish(results)

    def _read(self) -> tuple[list[Line], list[LineError]]:
        try:
            return check(self._state.files.lines(self._row.input_file_id), self._row.endpoint)
        except FileNotFoundError:
            return [], [LineError(0, "file_not_found", "The input file was deleted.")]

    async def _run_lines(self, lines: list[Line], results: Results) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            for index, line in enumerate(lines):
                if line.custom_id in results.done:
                    continue
                while len(tasks) >= _MOST_AT_ONCE:
                    await self._some_end(tasks, results)
                if self._over:
                    break
                task = asyncio.create_task(self._run_line(index, line, results))
                tasks.add(task)
                await asyncio.sleep(0)
            while tasks and not self._over:
                await self._some_end(tasks, results)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _over(self) -> bool:
        return self._cancelled.is_set() or time.time() > self._until

    async def _some_end(self, tasks: set[asyncio.Task[None]], results: Results) -> None:
        first = asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait(tasks, timeout=_LOOK_EVERY_S, return_when=first)
        tasks -= done
        for task in done:
            task.result()
        if done:
            await self._move(None, **_counts(results))

    async def _run_line(self, index: int, line: Line, results: Results) -> None:
        name = f"{self._row.id}/{index}"
        request_id = new_id("batch_req")
        try:
            caller = await run_in_threadpool(
                self._state.keyring.caller, self._row.key_id, self._row.tenant_id
            )
            request = read(self._row.endpoint, line)
            lane = await self._room(request)
            self._at_once[lane] += 1
            try:
                body = await answer(
                    *(self._state, caller, self._row.endpoint, request, name, self._until),
                    lambda: self._over,
                )
            finally:
                self._at_once[lane] -= 1
            status = 200
        except ApiError as error:
            status, body = error.status, error.body
        response = {"status_code": status, "request_id": request_id, "body": body}
        result = {"id": request_id, "custom_id": line.custom_id, "response": response}
        results.add(result | {"error": None}, succeeded=status == 200)

    async def _room(self, request: GenerationRequest) -> Lane:
        """When nothing waits on the lane, and less than half of what it runs at once is of this
        batch: then one more disturbs nobody. Raises ApiError."""
        while True:
            resolved = await self._state.resolver.resolve(self._row.tenant_id, request.model)
            lane = resolved.target.deployment.lane
            mine = self._at_once[lane]
            load = await self._state.queues.load(lane)
            if not mine or (not load.waiting and mine < max(2, load.slots // 2)):
                return lane
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _finish(self, results: Results) -> None:
        """Its result files, then its last status."""
        values: dict[str, Any] = _counts(results)
        for succeeded, column in ((True, "output_file_id"), (False, "error_file_id")):
            if results.count(succeeded):
                values[column] = await run_in_threadpool(self._store, results, succeeded)
        end = BatchStatus.COMPLETED
        if self._cancelled.is_set() or self._row.status == BatchStatus.CANCELLING:
            end = BatchStatus.CANCELLED
        elif time.time() > self._until:
            end = BatchStatus.EXPIRED
        await self._move(end, **values)
        with suppress(OSError):
            await run_in_threadpool(results.remove)

    def _store(self, results: Results, succeeded: bool) -> str:
        name = f"{self._row.id}_{'output' if succeeded else 'error'}.jsonl"
        blocks: Iterator[bytes] = results.blocks(succeeded)
        return add_file(self._state, self._row.tenant_id, name, "batch_output", blocks)

    async def _move(self, status: BatchStatus | None, **values: Any) -> None:
        await run_in_threadpool(self._write, status, values)

    def _write(self, status: BatchStatus | None, values: dict[str, Any]) -> None:
        """A word of the user's that came meanwhile is not overwritten, but by an end."""
        with Session(self._state.database, expire_on_commit=False) as session:
            row = session.get_one(Batch, self._row.id)
            if row.runner != self._state.broker.api_id:
                raise LeaseLost
            ends = status is not None and status not in UNDER_WAY
            if status is not None and (ends or row.status != BatchStatus.CANCELLING):
                row.times = {**row.times, status.value: int(time.time())}
                row.status = status.value
            if row.status == BatchStatus.CANCELLING:
                self._cancelled.set()
            row.sqlmodel_update(values)
            session.add(row)
            session.commit()
            self._row = row


def _counts(results: Results) -> dict[str, int]:
    return {"completed": results.count(True), "failed": results.count(False)}


def _add_expired(lines: list[Line], results: Results) -> None:
    """Those that the time was too short for."""
    for line in lines:
        if line.custom_id not in results.done:
            error = {"code": "batch_expired", "message": "The batch's time was over."}
            line_id = new_id("batch_req")
            result = {"id": line_id, "custom_id": line.custom_id, "response": None}
            results.add(result | {"error": error}, succeeded=False)


def _shown(error: LineError) -> dict[str, Any]:
    found = {"code": error.code, "message": error.message}
    return found | {"param": error.param, "line": error.line or None}
