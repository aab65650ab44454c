"""This process' reply channel → the streams that wait on it.

Position is identity: a stream knows the next position that it needs; what lies before is a repeat
and dropped, what lies beyond shows a gap, which is filled from the journal. When the subscription
breaks, every stream reads the journal once it is back: pub/sub may lose, the journal doesn't.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterable

import msgspec

from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import Enqueued
from loraplex.keys import Lane
from loraplex.messages import Job, TokenEvent

log = logging.getLogger(__name__)


class Waiting:
    """One request on its way: an ordered queue of its events."""

    def __init__(self, lane: Lane, request: str) -> None:
        self.lane = lane
        self.request = request
        self.entry: str | None = None  # known once it is enqueued
        self.position = 0  # the next one that it needs
        self.ended = False
        self.missed = False  # something may have passed by before `entry` was known
        self.events: asyncio.Queue[TokenEvent] = asyncio.Queue()

    def accept(self, event: TokenEvent) -> bool:
        """Queue what is new of an event. False: there is a gap before it."""
        if self.ended:
            return True
        if event.position > self.position:
            return False
        fresh = event.since(self.position)
        if fresh.tokens or fresh.finish:
            self.events.put_nowait(fresh)
        self.position += len(fresh.tokens)
        self.ended = event.finish is not None
        return True


class Inflight:
    """All streams of this process, and the task that feeds them."""

    def __init__(self, broker: ApiBroker) -> None:
        self._broker = broker
        self._waiting: dict[str, Waiting] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._subscribed = asyncio.Event()

    async def enqueue(self, lane: Lane, job: Job, max_backlog: int) -> tuple[Waiting, Enqueued]:
        """Register, then put the job on its lane. Raises BacklogFull, GateShut, Unavailable."""
        if not self._subscribed.is_set():  # tokens would be published to nobody
            await self._broker.ping()
            await asyncio.wait_for(self._subscribed.wait(), 5)
        waiting = self._waiting[job.request] = Waiting(lane, job.request)
        try:
            enqueued = await self._broker.enqueue(lane, job, max_backlog)
        except BaseException:
            del self._waiting[job.request]
            raise
        waiting.entry = enqueued.entry
        if waiting.missed:
            self._spawn(self._fill([waiting]))
        return waiting, enqueued

    def leave(self, waiting: Waiting) -> None:
        """The client has gone or has all it needs; what still runs is cancelled."""
        self._waiting.pop(waiting.request, None)
        if not waiting.ended and waiting.entry is not None:
            waiting.ended = True
            self._spawn(self._cancel(waiting.lane, waiting.entry, waiting.request))

    async def run(self) -> None:
        """Feed the streams for ever; reconnect with jitter."""
        while True:
            try:
                async for step in self._broker.listen():
                    if step is None:
                        self._subscribed.set()
                        self._spawn(self._fill(list(self._waiting.values())))
                        continue
                    for event in step.events:
                        waiting = self._waiting.get(event.request)
                        if waiting is not None and not waiting.accept(event):
                            self._spawn(self._fill([waiting]))
            except Unavailable as away:
                log.warning("reply channel lost, reconnecting: %s", away)
            self._subscribed.clear()
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _fill(self, streams: Iterable[Waiting]) -> None:
        """Read the journal for streams that may have missed something."""
        for waiting in streams:
            if waiting.entry is None:
                waiting.missed = True  # `enqueue` comes back here
                continue
            while not waiting.ended:
                try:
                    events = await self._broker.journalled(
                        waiting.lane, waiting.entry, waiting.request
                    )
                except Unavailable as away:
                    log.warning("journal not readable, trying again: %s", away)
                    await asyncio.sleep(random.uniform(0.2, 1.0))
                    continue
                for event in events:
                    if not waiting.accept(event) and event.finish == "error":
                        # Not a replica's: it ends the stream wherever that is (`answer_stranded`).
                        waiting.accept(msgspec.structs.replace(event, position=waiting.position))
                break

    async def _cancel(self, lane: Lane, entry: str, request: str) -> None:
        try:
            await self._broker.cancel(lane, entry, request)
        except Unavailable as away:
            log.warning("request %s not cancelled, its deadline will end it: %s", request, away)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
