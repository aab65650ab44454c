"""One batch in a process' hands: its requests, a few at once, then its result files."""

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any, BinaryIO

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, col

from api.batches.lines import Line, LineError, body_of, check
from api.batches.request import Asked, answer, first_try, pause_of, read
from api.batches.results import MOST_BYTES, Results
from api.errors import ApiError
from api.openai.files import add_file
from api.requests.models import BrokenModel
from api.requests.terms import request_id, unique_by
from api.state import State
from loraplex.batch_status import UNDER_WAY, BatchStatus
from loraplex.broker.connection import Unavailable
from loraplex.compare_and_set import changed
from loraplex.entities import Batch, new_id, utc_now
from loraplex.keys import Lane

log = logging.getLogger(__name__)

LEASE_S = 15.0
_RENEW_EVERY_S = 1.0
_MOST_AT_ONCE = 64  # requests
_LAST_READ_S = 2.0
_ASK_AGAIN_S = 0.2  # whether there is room


class LeaseLost(Exception):
    """Another process runs it now."""


def lease(session: Session, state: State, batch: str, condition: Any) -> bool:
    until = utc_now() + timedelta(seconds=LEASE_S)
    mine = (
        update(Batch)
        .where(col(Batch.id) == batch, condition)
        .values(runner=state.broker.api_id, leased_until=until)
    )
    won = changed(session, mine) == 1
    session.commit()
    return won


class BatchRun:
    """`at_once`: how many requests this process' batches have on each lane."""

    def __init__(self, state: State, row: Batch, at_once: Counter[Lane]) -> None:
        self._state = state
        self._row = row
        self._until = row.expires_at.timestamp()
        self._at_once = at_once
        self._cancelled = row.status == BatchStatus.CANCELLING
        self._adopted: list[tuple[Lane, str, list[str]]] = []
        self._taken_over = row.status != BatchStatus.VALIDATING

    @property
    def tenant(self) -> str:
        return self._row.tenant_id

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
            await asyncio.sleep(_RENEW_EVERY_S)

    def _renew(self) -> None:
        mine = col(Batch.runner) == self._state.broker.api_id
        with Session(self._state.database) as session:
            if not lease(session, self._state, self._row.id, mine):
                raise LeaseLost
            if session.get_one(Batch, self._row.id).status == BatchStatus.CANCELLING:
                self._cancelled = True

    @property
    def _over(self) -> bool:
        return self._cancelled or time.time() > self._until

    async def _work(self) -> None:
        folder = self._state.settings.files_dir / "batches" / self._row.id
        results = await run_in_threadpool(Results, folder)
        end = BatchStatus.COMPLETED
        if self._row.status != BatchStatus.FINALIZING:
            try:
                file = self._state.files.path(self._row.input_file_id).open("rb")
            except FileNotFoundError:
                gone = LineError(0, "file_not_found", "The input file is gone.")
                await self._fail([gone], results)
                return
            with file:
                lines, errors = await run_in_threadpool(check, file, self._row.endpoint)
                if errors:
                    await self._fail(errors, results)
                    return
                await self._move(BatchStatus.IN_PROGRESS, total=len(lines))
                await self._run_lines(file, lines, results)
            if not self._cancelled:
                left = await run_in_threadpool(_add_expired, lines, results)
                end = BatchStatus.EXPIRED if left else end
            await self._move(BatchStatus.FINALIZING, **_counts(results))
        await self._finish(BatchStatus.CANCELLED if self._cancelled else end, results)

    async def _fail(self, errors: list[LineError], results: Results) -> None:
        await self._move(BatchStatus.FAILED, errors=[_shown(each) for each in errors])
        await self._clean_up(results)

    async def _run_lines(self, file: BinaryIO, lines: list[Line], results: Results) -> None:
        keeper = asyncio.create_task(self._keep_counts(results))
        adopted = await self._adopt(file, lines, results)
        tasks = {*adopted.values()}
        try:
            for index, line in enumerate(lines):
                if self._over:
                    break
                if line.custom_id not in results.done and index not in adopted:
                    begun = await self._begin(file, index, line, results)
                    tasks |= {begun} if begun else set()
                while len(tasks) >= _MOST_AT_ONCE and not self._over:
                    await _some_end(tasks)
            while tasks and not self._over:
                await _some_end(tasks)
            if tasks:  # what has ended is read still, the rest stopped
                await asyncio.wait(tasks, timeout=_LAST_READ_S)
                await self._stop_adopted()
        finally:
            for task in (*tasks, keeper):
                task.cancel()
            await asyncio.gather(*tasks, keeper, return_exceptions=True)

    async def _adopt(
        self, file: BinaryIO, lines: list[Line], results: Results
    ) -> "dict[int, asyncio.Task[None]]":
        """Requests that another process had sent when it died: they run, or have ended, whether it
        is wanted or not. By their lines' numbers."""
        adopted: dict[int, asyncio.Task[None]] = {}
        if not self._taken_over:
            return adopted
        open_ = [(i, line) for i, line in enumerate(lines) if line.custom_id not in results.done]
        for index, line in open_[: 2 * _MOST_AT_ONCE]:
            with suppress(ApiError, BrokenModel, RecursionError):
                asked = read(self._row.endpoint, body_of(file, line))
                resolved = await self._state.resolver.resolve(self.tenant, asked.request.model)
                deployment = resolved.deployment
                unique = unique_by(self.tenant, first_try(self._name(index)))
                name = request_id(deployment.id, unique)
                recorded = await self._state.broker.recorded(deployment.lane, name)
                if recorded is not None and not recorded.stopped:
                    self._adopted.append((deployment.lane, name, recorded.entries))
                    adopted[index] = self._spawn(deployment.lane, index, line, asked, results)
        return adopted

    async def _stop_adopted(self) -> None:
        """Also for the process that is dead, which is waited for else."""
        for lane, name, entries in self._adopted:
            await self._state.broker.cancel(lane, name, entries)

    def _name(self, index: int) -> str:
        return f"{self._row.id}/{index}"

    async def _begin(
        self, file: BinaryIO, index: int, line: Line, results: Results
    ) -> "asyncio.Task[None] | None":
        """Begin a line when there is room for it. None: it has failed already, or it is over."""
        try:
            if results.size > MOST_BYTES:
                reason = f"This batch's results have over {MOST_BYTES} bytes: send a smaller one."
                raise ApiError(400, "batch_too_large", reason)
            asked = read(self._row.endpoint, body_of(file, line))
            lane = await self._room(asked.request.model)
        except Exception as failed:
            _record(results, line, _refusal(failed, line))
            return None
        if lane is None:
            return None
        return self._spawn(lane, index, line, asked, results)

    def _spawn(
        self, lane: Lane, index: int, line: Line, asked: Asked, results: Results
    ) -> "asyncio.Task[None]":
        self._at_once[lane] += 1
        task = asyncio.create_task(self._run_line(index, line, asked, results))

        def ended(_: Any) -> None:
            self._at_once[lane] -= 1

        task.add_done_callback(ended)
        return task

    async def _room(self, model: str) -> Lane | None:
        """When nothing waits on the lane, and this process' batches have less than half of what it
        runs at once: then one more disturbs nobody. None: it is over. Raises ApiError."""
        while not self._over:
            try:
                resolved = await self._state.resolver.resolve(self.tenant, model)
            except ApiError as error:
                pause_s = pause_of(error)
                if pause_s is None:
                    raise
                await asyncio.sleep(min(pause_s, _RENEW_EVERY_S))
                continue
            lane = resolved.deployment.lane
            mine = self._at_once[lane]
            load = await self._state.queues.load(lane)
            if not mine or (not load.waiting and mine < max(2, load.slots // 2)):
                return lane
            await asyncio.sleep(_ASK_AGAIN_S)
        return None

    async def _run_line(self, index: int, line: Line, asked: Asked, results: Results) -> None:
        try:
            caller = await run_in_threadpool(
                self._state.keyring.caller, self._row.key_id, self.tenant
            )
            body = await answer(
                *(self._state, caller, asked, self._name(index), self._until),
                lambda: self._over,
            )
        except Exception as failed:
            _record(results, line, _refusal(failed, line))
        else:
            _record(results, line, (200, body))

    async def _keep_counts(self, results: Results) -> None:
        known = results.counts.total()
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            if results.counts.total() > known:
                known = results.counts.total()
                await self._move(None, **_counts(results))

    async def _finish(self, end: BatchStatus, results: Results) -> None:
        """Its result files, then its last status. Done twice it is the same."""
        values: dict[str, Any] = _counts(results)
        for succeeded, column in ((True, "output_file_id"), (False, "error_file_id")):
            if results.counts[succeeded]:
                values[column] = await run_in_threadpool(self._store, results, succeeded)
        await self._move(end, **values)
        await self._clean_up(results)

    def _store(self, results: Results, succeeded: bool) -> str:
        kind = "output" if succeeded else "error"
        name = f"file-{self._row.id.rpartition('-')[2]}{kind}"
        title = f"{self._row.id}_{kind}.jsonl"
        blocks = results.blocks(succeeded)
        return add_file(self._state, self.tenant, name, title, "batch_output", blocks)

    async def _clean_up(self, results: Results) -> None:
        with suppress(OSError):
            await run_in_threadpool(results.remove)

    async def _move(self, status: BatchStatus | None, **values: Any) -> None:
        await run_in_threadpool(self._write, status, values)

    def _write(self, status: BatchStatus | None, values: dict[str, Any]) -> None:
        """A word of the user's that came meanwhile is not overwritten, but by an end."""
        with Session(self._state.database, expire_on_commit=False) as session:
            row = session.get_one(Batch, self._row.id)
            if row.runner != self._state.broker.api_id:
                raise LeaseLost
            if row.status == BatchStatus.CANCELLING:
                self._cancelled = True
            if status is not None and (status not in UNDER_WAY or not self._cancelled):
                row.times = {status.value: int(time.time()), **row.times}
                row.status = status.value
            row.sqlmodel_update(values)
            session.add(row)
            session.commit()
            self._row = row


async def _some_end(tasks: set[asyncio.Task[None]]) -> None:
    """Raises what a line raised that is no failure of its own."""
    first = asyncio.FIRST_COMPLETED
    done, _ = await asyncio.wait(tasks, timeout=_RENEW_EVERY_S, return_when=first)
    tasks -= done
    for task in done:
        task.result()


def _refusal(failed: Exception, line: Line) -> tuple[int, dict[str, Any]]:
    """Status and body of a line that failed. Raises what concerns all lines."""
    if isinstance(failed, ApiError):
        return failed.status, failed.body
    if isinstance(failed, (*Unavailable, SQLAlchemyError)):
        raise failed
    if isinstance(failed, BrokenModel):
        broken = ApiError(503, "model_broken", str(failed))
        return broken.status, broken.body
    log.error("a batch's line %r failed", line.custom_id, exc_info=failed)
    defect = ApiError(500, "server_error", "A defect of the server; its log has the details.")
    return defect.status, defect.body


def _record(results: Results, line: Line, found: tuple[int, dict[str, Any]]) -> None:
    status, body = found
    name = new_id("batch_req")
    response = {"status_code": status, "request_id": name, "body": body}
    result = {"id": name, "custom_id": line.custom_id, "response": response, "error": None}
    results.add(result, succeeded=status == 200)


def _counts(results: Results) -> dict[str, int]:
    return {"completed": results.counts[True], "failed": results.counts[False]}


def _add_expired(lines: list[Line], results: Results) -> int:
    """Those that the time was too short for: how many."""
    left = [line for line in lines if line.custom_id not in results.done]
    for line in left:
        error = {"code": "batch_expired", "message": "The batch's time was over."}
        result = {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": None}
        results.add(result | {"error": error}, succeeded=False)
    return len(left)


def _shown(error: LineError) -> dict[str, Any]:
    found = {"code": error.code, "message": error.message}
    return found | {"param": error.param, "line": error.line or None}
