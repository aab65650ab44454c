"""One answer on its way to this process: an ordered, bounded queue of its events.

Position is identity: what lies before the next position is a repeat and dropped, what lies beyond
shows a gap. A reader that is late finds several tokens in an event. An answer that has a gap, or
whose reader is so late that its buffer is full, is behind: what comes then is not kept, but read
from the journal when its reader has come so far (a cursor, not a queue).
"""

import asyncio
import time

from loraplex.broker.stream_ids import in_order
from loraplex.keys import Lane
from loraplex.messages import TokenEvent

MOST_EVENTS = 64  # then the last one grows
MOST_TOKENS = 2048  # 256 where their log-probabilities are shown: those are large


class Waiting:
    """`entry` is the job's id in its lane's stream, known once it is enqueued; up to `after` the
    journal has nothing of it."""

    def __init__(
        self, lane: Lane, request: str, entry: str | None = None, after: str = "0-0"
    ) -> None:
        self.lane = lane
        self.request = request  # the answer's id, as its job has it
        self.entry = entry
        self.after = after
        self.position = 0  # the next one that it needs
        self.ended = False
        self.wanted: int | None = None  # tokens; known when its text came to a stop string
        self.behind = False  # the rest is in the journal
        self.over = ""  # the journal has all that there will be; if that isn't its end: this error
        self._seen = ""  # id in the journal: nothing is missing before it
        self._events: list[TokenEvent] = []
        self._reader: asyncio.Future[None] | None = None  # its reader, while that waits
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def cursor(self) -> str:
        """Where to read on in the journal."""
        return self._seen or self.after

    def accept(self, event: TokenEvent, entry: str) -> None:
        """Queue what is new of an event; `entry` is its id in the journal."""
        # Once for every token of every stream: the usual case calls nothing.
        if self.ended or (not self._seen and self._foreign(entry)):
            return
        fresh = event if event.position == self.position else event.since(self.position)
        unread = len(self._events)
        if event.position > self.position or (unread >= MOST_EVENTS and self.full):
            self.fall_behind()
        elif fresh.tokens or fresh.finish:
            if unread < MOST_EVENTS:
                self._events.append(fresh)
            else:
                self._events[-1] = self._events[-1].followed_by(fresh)
            self.position += len(fresh.tokens)
            self.ended = event.finish is not None
            self._seen = entry or self._seen
            if not unread:
                self.wake()

    def _foreign(self, entry: str) -> bool:
        """Of an earlier request with the same Idempotency-Key, or it can't be told yet."""
        if not entry:
            return False
        if self.entry is None:
            self.fall_behind()
            return True
        return in_order(entry) <= in_order(self.after)

    def fall_behind(self) -> None:
        """Something may have been missed."""
        self.behind = True
        self.wake()

    def passed(self, entry: str) -> None:
        """All that the journal has for it up to this entry is accepted."""
        if in_order(entry) > in_order(self.cursor):
            self._seen = entry

    def pop(self) -> list[TokenEvent]:
        """All events that are there."""
        events, self._events = self._events, []
        return events

    @property
    def ready(self) -> bool:
        return bool(self._events)

    @property
    def full(self) -> bool:
        if not self._events:
            return False
        first = self._events[0]
        most = MOST_TOKENS if first.logprobs is None else MOST_TOKENS // 8
        return self.position - first.position >= most

    async def came(self, deadline: float) -> None:
        """Returns when there may be something to pop, or to read from the journal, or it is late.

        One timer an answer: one for each token would cost more than the token.
        """
        loop = asyncio.get_running_loop()
        if self._alarm is None:
            self._alarm = loop.call_later(max(0.0, deadline - time.time()), self._late)
        self._reader = loop.create_future()
        await self._reader

    def _late(self) -> None:
        self._alarm = None
        self.wake()

    def wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def forget(self) -> None:
        """Nobody waits for it any more."""
        if self._alarm is not None:
            self._alarm.cancel()
