"""What the clients of this process wait for, and the tasks that feed it.

Tokens come over this process' reply channel. A request that was sent through another process is
followed in its lane's journal instead: its replica publishes to where it was sent from. When a
subscription breaks, every answer reads the journal once it is back: pub/sub may lose, the journal
doesn't.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from api.requests.catch_up import KEPT_NO_LONGER, LOST, CatchUp
from api.requests.waiting import Waiting
from loraplex.broker.api import ApiBroker
from loraplex.broker.cancellation import answer_id
from loraplex.broker.connection import Unavailable
from loraplex.broker.limiter import Limiter
from loraplex.broker.stream_ids import before
from loraplex.keys import Lane
from loraplex.messages import Job, Shown, Step, TokenEvent

log = logging.getLogger(__name__)

_FOLLOW_S = 2.0  # a blocking read of a journal; shorter than a call's timeout
_HERE_EVERY_S = 2.0
_SUBSCRIBED_WITHIN_S = 1.0
_LEAVE_TRIES = 60  # a second apart
_READ_WITHIN_S = 5.0  # the journal, past the deadline


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A request that a client of this process waits for."""

    lane: Lane
    shown: Shown
    waiter: str  # this client, among all that may wait for the request
    answers: list[Waiting]
    # Of each answer, what the limiter holds for it, and the prompt tokens that count. Empty: there
    # is nothing, or another process has sent it, and the scaler settles.
    reserved: Sequence[tuple[str, int]] = ()
    ahead: int = 0  # answers that waited when it came


class Inflight:
    """All requests that this process waits for. Run `run` for as long as it lives."""

    def __init__(self, broker: ApiBroker, limiter: Limiter) -> None:
        self._broker = broker
        self._limiter = limiter
        self._catch_up = CatchUp(broker)
        # By answer; two may wait for one: a request may be sent again while it runs.
        self._live: dict[str, list[Waiting]] = {}  # fed by the reply channel
        self._followed: dict[Lane, dict[str, list[Waiting]]] = {}  # fed by a lane's journal
        self._background: set[asyncio.Task[None]] = set()
        self._subscribed = asyncio.Event()

    @property
    def answers(self) -> int:
        """That clients wait for here."""
        tables = (self._live, *list(self._followed.values()))
        # Copies: a scrape asks in a thread of its own.
        return sum(len(waiting) for table in tables for waiting in list(table.values()))

    async def enqueue(
        self,
        lane: Lane,
        jobs: Sequence[Job],
        shown: Shown,
        *,
        max_backlog: int,
        keep_s: float,
        reserved: Sequence[tuple[str, int]] = (),
    ) -> Ongoing:
        """Register, then put a request's jobs on their lane.

        Raises what `ApiBroker.enqueue` does, Unavailable, TimeoutError.
        """
        if not self._subscribed.is_set():  # tokens would be published to nobody
            await self._broker.ping()
            await asyncio.wait_for(self._subscribed.wait(), _SUBSCRIBED_WITHIN_S)
        answers = [Waiting(lane, job.request) for job in jobs]
        ongoing = Ongoing(lane, shown, self._waiter(), answers, reserved)
        _add(self._live, ongoing.answers)
        try:
            accepted = await self._broker.enqueue(
                *(lane, jobs, shown, ongoing.waiter), max_backlog=max_backlog, keep_s=keep_s
            )
        except BaseException as failed:
            self._forget(ongoing)
            if not isinstance(failed, Exception) or isinstance(failed, Unavailable):
                # It may be on the lane nevertheless; its client is told that it isn't.
                self._spawn(self._withdraw(lane, shown.request, ongoing.waiter))
            raise
        for waiting, entry in zip(ongoing.answers, accepted.entries, strict=True):
            waiting.entry, waiting.after = entry, accepted.after
        return replace(ongoing, ahead=accepted.ahead)

    async def attach(self, lane: Lane, request: str) -> Ongoing | None:
        """Wait for a request that was sent before, here or elsewhere, from its beginning.

        None: it is unknown, or kept no longer. Raises Unavailable.
        """
        waiter = self._waiter()
        try:
            recorded = await self._broker.attach(lane, request, waiter)
        except BaseException:
            self._spawn(self._withdraw(lane, request, waiter))
            raise
        if recorded is None:
            return None
        answers = [
            Waiting(lane, answer_id(request, index), entry, recorded.after or before(entry))
            for index, entry in enumerate(recorded.entries)
        ]
        for waiting in answers:
            waiting.over = "" if waiting.entry in recorded.unfinished else KEPT_NO_LONGER
        if lane not in self._followed:
            self._followed[lane] = {}
            self._spawn(self._follow(lane, recorded.journal))
        _add(self._followed[lane], answers)
        _fall_behind(answers)
        return Ongoing(lane, recorded.shown, waiter, answers)

    def done(self, ongoing: Ongoing) -> None:
        """The client has all it needs; what still runs is stopped unless others wait for it."""
        self._forget(ongoing)
        took = _took(ongoing)
        if took:
            self._spawn(self._settle(ongoing.shown.tenant, took))
        self._spawn(self._leave(ongoing, unserved=False))

    def gone(self, ongoing: Ongoing) -> None:
        """The client has gone. It may come back for a while."""
        self._forget(ongoing)
        self._spawn(self._leave(ongoing, unserved=True))

    async def next(self, waiting: Waiting, deadline: float) -> list[TokenEvent]:
        """All events of an answer that are there, at least one. Past `deadline` (Unix seconds) it
        is "expired"."""
        while not (events := waiting.pop()):
            late = time.time() >= deadline
            if waiting.behind:  # also a request that is long over can be read again
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(deadline - time.time(), _READ_WITHIN_S)):
                        await self._catch_up.read(waiting)
            if late and not waiting.ready:
                return [TokenEvent(waiting.request, waiting.position, [], "expired")]
            if not waiting.behind and not waiting.ready:
                await waiting.came(deadline)
        return events

    async def run(self) -> None:
        """Feed the answers for ever; reconnect with jitter."""
        self._spawn(self._stay())
        while True:
            try:
                async for step in self._broker.listen():
                    if step is None:
                        self._subscribed.set()
                        for answers in self._live.values():
                            _fall_behind(answers)
                        self._spawn(self._find_lost())
                    else:
                        _give(step, step.entry.rstrip(), self._live)
            except Unavailable as away:
                log.warning("reply channel lost, reconnecting: %s", away)
            except Exception:  # the outermost loop: without it this process is deaf
                log.exception("the reply channel failed, trying again")
            self._subscribed.clear()
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _stay(self) -> None:
        """Say that this process lives: else its requests are given up."""
        while True:
            try:
                await self._broker.here()
            except Unavailable as away:
                log.warning("presence not told: %s", away)
            except Exception:  # the outermost loop: without it this process is taken for dead
                log.exception("presence not told, trying again")
            await asyncio.sleep(_HERE_EVERY_S)

    async def _find_lost(self) -> None:
        """After Redis was away: jobs that are on their lanes no more have all their tokens in the
        journal, or were lost with Redis' machine. Nobody waits for more."""
        tables = (self._live, *self._followed.values())
        waiting = [w for table in tables for each in table.values() for w in each if w.entry]
        for lane in {each.lane for each in waiting}:
            here = [each for each in waiting if each.lane == lane]
            try:
                on_lane = await self._broker.on_lane(lane, [each.entry or "" for each in here])
            except Unavailable as away:
                log.warning("lost requests are looked for later: %s", away)
                await asyncio.sleep(random.uniform(0.5, 1.5))
                self._spawn(self._find_lost())
                return
            for each in here:
                each.over = each.over or ("" if each.entry in on_lane else LOST)
                each.fall_behind()

    async def _follow(self, lane: Lane, after: str) -> None:
        """Feed from a lane's journal while somebody needs it."""
        while self._followed[lane]:
            try:
                page = await self._broker.follow_journal(lane, after, _FOLLOW_S)
            except Unavailable as away:
                log.warning("journal not readable, trying again: %s", away)
                await asyncio.sleep(random.uniform(0.2, 1.0))
                continue
            except Exception:  # the outermost loop: others would wait for this lane for ever
                log.exception("journal not followed, trying again")
                await asyncio.sleep(1)
                continue
            for entry, step in page.steps:
                _give(step, entry, self._followed[lane])
            after = page.last or after
        del self._followed[lane]

    def _forget(self, ongoing: Ongoing) -> None:
        for table in (self._live, self._followed.get(ongoing.lane, {})):
            for waiting in ongoing.answers:
                waiting.forget()
                self._catch_up.forget(waiting)
                left = [each for each in table.pop(waiting.request, ()) if each is not waiting]
                if left:
                    table[waiting.request] = left

    async def _leave(self, ongoing: Ongoing, *, unserved: bool) -> None:
        if unserved:
            await asyncio.sleep(ongoing.shown.grace_s)
        entries = [waiting.entry or "" for waiting in ongoing.answers]
        request, waiter = ongoing.shown.request, ongoing.waiter
        wanted = [waiting.wanted for waiting in ongoing.answers]
        leave = partial(self._broker.leave, ongoing.lane, request, entries, waiter, wanted=wanted)
        await self._until_answered(request, partial(leave, unserved=unserved))

    async def _settle(self, tenant: str, took: Mapping[str, int]) -> None:
        """At once, for the tenant's next request; the scaler does it by the usage records, too."""
        with suppress(*Unavailable):
            await self._limiter.settle(tenant, took)

    async def _withdraw(self, lane: Lane, request: str, waiter: str) -> None:
        """Leave a request of which it isn't known whether it was enqueued, or waited for."""

        async def leave() -> None:
            recorded = await self._broker.recorded(lane, request)
            if recorded is not None:
                await self._broker.leave(lane, request, recorded.entries, waiter, unserved=True)

        await self._until_answered(request, leave)

    async def _until_answered(self, request: str, call: Callable[[], Awaitable[Any]]) -> None:
        """Redis may be away for a while; the request's deadline ends it in any case."""
        for _ in range(_LEAVE_TRIES):
            try:
                await call()
                return
            except Unavailable as away:
                log.debug("request %s is not left yet: %s", request, away)
                await asyncio.sleep(random.uniform(0.5, 1.5))
        log.warning("request %s could not be left: Redis was away for too long", request)

    def _waiter(self) -> str:
        return f"{self._broker.api_id}/{secrets.token_hex(4)}"

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task failed", exc_info=task.exception())


def _add(table: dict[str, list[Waiting]], answers: Iterable[Waiting]) -> None:
    for waiting in answers:
        table.setdefault(waiting.request, []).append(waiting)


def _took(ongoing: Ongoing) -> dict[str, int]:
    """Reservation → tokens, of those answers of which it is known here."""
    took = {}
    for waiting, (reservation, prompt) in zip(ongoing.answers, ongoing.reserved, strict=False):
        output = waiting.wanted if waiting.wanted is not None else waiting.position
        if waiting.ended or waiting.wanted is not None:
            took[reservation] = prompt + output if output else 0
    return took


def _fall_behind(answers: Iterable[Waiting]) -> None:
    for waiting in answers:
        waiting.fall_behind()


def _give(step: Step, entry: str, to: dict[str, list[Waiting]]) -> None:
    for event in step.events:
        for waiting in to.get(event.request, ()):
            waiting.accept(event, entry)
