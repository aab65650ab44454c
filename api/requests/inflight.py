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
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from api.requests.waiting import Waiting
from loraplex.broker.api import ApiBroker
from loraplex.broker.cancellation import answer_id
from loraplex.broker.connection import Unavailable
from loraplex.keys import Lane
from loraplex.messages import Job, Shown, Step, TokenEvent

log = logging.getLogger(__name__)

_FOLLOW_S = 2.0  # a blocking read of a journal; shorter than a call's timeout
_HERE_EVERY_S = 2.0
_SUBSCRIBED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Ongoing:
    """A request that a client of this process waits for."""

    lane: Lane
    shown: Shown
    waiter: str  # this client, among all that may wait for the request
    answers: list[Waiting]


class Inflight:
    """All requests that this process waits for. Run `run` for as long as it lives."""

    def __init__(self, broker: ApiBroker) -> None:
        self._broker = broker
        # By answer; two may wait for one: a request may be sent again while it runs.
        self._live: dict[str, list[Waiting]] = {}  # fed by the reply channel
        self._followed: dict[Lane, dict[str, list[Waiting]]] = {}  # fed by a lane's journal
        self._background: set[asyncio.Task[None]] = set()
        self._subscribed = asyncio.Event()

    async def enqueue(
        self, lane: Lane, jobs: Sequence[Job], shown: Shown, *, max_backlog: int, keep_s: float
    ) -> Ongoing:
        """Register, then put a request's jobs on their lane.

        Raises BacklogFull, GateShut, AlreadyKnown, Unavailable, TimeoutError.
        """
        if not self._subscribed.is_set():  # tokens would be published to nobody
            await self._broker.ping()
            await asyncio.wait_for(self._subscribed.wait(), _SUBSCRIBED_WITHIN_S)
        ongoing = Ongoing(lane, shown, self._waiter(), [Waiting(lane, j.request) for j in jobs])
        _add(self._live, ongoing.answers)
        try:
            entries = await self._broker.enqueue(
                *(lane, jobs, shown, ongoing.waiter), max_backlog=max_backlog, keep_s=keep_s
            )
        except BaseException as failed:
            self._forget(ongoing)
            if not isinstance(failed, Exception) or isinstance(failed, Unavailable):
                # It may be on the lane nevertheless; its client is told that it isn't.
                self._spawn(self._withdraw(lane, shown.request, ongoing.waiter))
            raise
        for waiting, entry in zip(ongoing.answers, entries, strict=True):
            waiting.entry = entry
        missed = [waiting for waiting in ongoing.answers if waiting.missed]
        if missed:
            self._spawn(self._fill(missed))
        return ongoing

    async def attach(self, lane: Lane, request: str) -> Ongoing | None:
        """Wait for a request that was sent before, here or elsewhere, from its beginning.

        None: it is unknown, or kept no longer. Raises Unavailable.
        """
        waiter = self._waiter()
        recorded = await self._broker.attach(lane, request, waiter)
        if recorded is None:
            return None
        answers = [
            Waiting(lane, answer_id(request, index), entry)
            for index, entry in enumerate(recorded.entries)
        ]
        if lane not in self._followed:
            self._followed[lane] = {}
            self._spawn(self._follow(lane, recorded.journal))
        _add(self._followed[lane], answers)
        self._spawn(self._fill(answers))
        return Ongoing(lane, recorded.shown, waiter, answers)

    def done(self, ongoing: Ongoing) -> None:
        """The client has all it needs; what still runs is stopped unless others wait for it."""
        self._forget(ongoing)
        self._spawn(self._leave(ongoing, unserved=False))

    def gone(self, ongoing: Ongoing) -> None:
        """The client has gone. It may come back for a while."""
        self._forget(ongoing)
        self._spawn(self._leave(ongoing, unserved=True))

    async def next(self, waiting: Waiting, deadline: float) -> TokenEvent:
        """The next event of an answer. Past `deadline` (Unix seconds) it is "expired"."""
        while (event := waiting.pop()) is None:
            if waiting.behind:
                waiting.behind = False
                await self._fill([waiting])
                continue
            try:
                await asyncio.wait_for(waiting.came(), max(deadline - time.time(), 0))
            except TimeoutError:
                return TokenEvent(waiting.request, waiting.position, [], "expired")
        return event

    async def run(self) -> None:
        """Feed the answers for ever; reconnect with jitter."""
        self._spawn(self._stay())
        while True:
            try:
                async for step in self._broker.listen():
                    if step is None:
                        self._subscribed.set()
                        everybody = [each for all_ in self._live.values() for each in all_]
                        self._spawn(self._fill(everybody))
                    else:
                        self._give(step, self._live)
            except Unavailable as away:
                log.warning("reply channel lost, reconnecting: %s", away)
            self._subscribed.clear()
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _stay(self) -> None:
        """Say that this process lives: else its requests are given up."""
        while True:
            try:
                await self._broker.here()
            except Unavailable as away:
                log.warning("presence not told: %s", away)
            await asyncio.sleep(_HERE_EVERY_S)

    async def _follow(self, lane: Lane, after: str) -> None:
        """Feed from a lane's journal while somebody needs it."""
        while self._followed[lane]:
            try:
                entries = await self._broker.journal(lane, after, block_s=_FOLLOW_S)
            except Unavailable as away:
                log.warning("journal not readable, trying again: %s", away)
                await asyncio.sleep(random.uniform(0.2, 1.0))
                continue
            for _, step in entries:
                self._give(step, self._followed[lane])
            after = entries[-1][0] if entries else after
        del self._followed[lane]

    def _give(self, step: Step, to: dict[str, list[Waiting]]) -> None:
        for event in step.events:
            for waiting in to.get(event.request, ()):
                if not waiting.accept(event):
                    self._spawn(self._fill([waiting]))

    async def _fill(self, answers: Iterable[Waiting]) -> None:
        """Read the journal for answers that may have missed something."""
        for waiting in answers:
            if waiting.entry is None:
                waiting.missed = True  # `enqueue` comes back here
                continue
            while not waiting.ended:
                try:
                    await self._read_journal(waiting)
                    break
                except Unavailable as away:
                    log.warning("journal not readable, trying again: %s", away)
                    await asyncio.sleep(random.uniform(0.2, 1.0))

    async def _read_journal(self, waiting: Waiting) -> None:
        """From where nothing is missing to the end, or to where the reader's buffer is full."""
        # Both ids come from the same Redis clock: nothing about a job precedes its enqueueing.
        after = waiting.cursor or f"{int((waiting.entry or '0').split('-')[0]) - 1}-0"
        while entries := await self._broker.journal(waiting.lane, after):
            for after, step in entries:
                for event in step.events:
                    if event.request == waiting.request and not waiting.accept(event):
                        waiting.accept(_beyond_a_gap(event, waiting.position))
                if waiting.behind or waiting.ended:
                    return
                waiting.cursor = after

    def _forget(self, ongoing: Ongoing) -> None:
        for table in (self._live, self._followed.get(ongoing.lane, {})):
            for waiting in ongoing.answers:
                left = [each for each in table.pop(waiting.request, ()) if each is not waiting]
                if left:
                    table[waiting.request] = left

    async def _leave(self, ongoing: Ongoing, *, unserved: bool) -> None:
        if unserved:
            await asyncio.sleep(ongoing.shown.grace_s)
        entries = [waiting.entry or "" for waiting in ongoing.answers]
        request = ongoing.shown.request
        try:
            await self._broker.leave(
                ongoing.lane, request, entries, ongoing.waiter, unserved=unserved
            )
        except Unavailable as away:
            log.warning("request %s not stopped, its deadline will end it: %s", request, away)

    async def _withdraw(self, lane: Lane, request: str, waiter: str) -> None:
        """Stop a request whose enqueueing was not answered, when Redis is back."""
        for _ in range(60):
            try:
                recorded = await self._broker.recorded(lane, request)
                if recorded is not None:
                    await self._broker.leave(lane, request, recorded.entries, waiter, unserved=True)
                return
            except Unavailable:
                await asyncio.sleep(random.uniform(0.5, 1.5))

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


def _beyond_a_gap(event: TokenEvent, position: int) -> TokenEvent:
    """What an event means that the journal has after a gap."""
    if not event.tokens:  # not a replica's: it ends the answer wherever that is
        return msgspec.structs.replace(event, position=position)
    error = "The beginning of this answer is kept no longer."
    return TokenEvent(event.request, position, [], "error", error, "answer_expired")
