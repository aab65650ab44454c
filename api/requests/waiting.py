"""One answer on its way to this process: an ordered, bounded queue of its events.

Position is identity: what lies before the next position is a repeat and dropped, what lies beyond
shows a gap. A reader that is slow finds its buffer full: what comes then is not kept, but read from
the journal when the reader has come so far (a cursor, not a queue).
"""

import asyncio
from collections import deque

from loraplex.keys import Lane
from loraplex.messages import TokenEvent

MOST_EVENTS = 256


class Waiting:
    """`entry` is the job's id in its lane's stream, known once it is enqueued."""

    def __init__(self, lane: Lane, request: str, entry: str | None = None) -> None:
        self.lane = lane
        self.request = request  # the answer's id, as its job has it
        self.entry = entry
        self.position = 0  # the next one that it needs
        self.ended = False
        self.missed = False  # something may have passed by before `entry` was known
        self.behind = False  # the buffer was full: the rest is in the journal
        self.cursor: str | None = None  # in the journal: nothing is missing before it
        self._events: deque[TokenEvent] = deque()
        self._came = asyncio.Event()

    def accept(self, event: TokenEvent) -> bool:
        """Queue what is new of an event. False: there is a gap before it."""
        if self.ended or self.behind:
            return True
        if event.position > self.position:
            return False
        fresh = event.since(self.position)
        if not fresh.tokens and not fresh.finish:
            return True
        if len(self._events) >= MOST_EVENTS:
            self.behind = True
            self._came.set()
            return True
        self._events.append(fresh)
        self.position += len(fresh.tokens)
        self.ended = event.finish is not None
        self._came.set()
        return True

    def pop(self) -> TokenEvent | None:
        """The next event, if one is there."""
        return self._events.popleft() if self._events else None

    async def came(self) -> None:
        """Returns when there may be something to pop, or to read from the journal."""
        await self._came.wait()
        self._came.clear()
