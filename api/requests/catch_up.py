"""Reading the journal for answers that are behind.

One page serves all of a lane's answers that are behind, also those whose readers have not run dry
yet: an API process that can't keep up with its replicas reads each page once, not once for every
stream.
"""

import asyncio
import logging
import random
from collections.abc import Iterable

import msgspec

from api.requests.waiting import Waiting
from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import Page
from loraplex.broker.stream_ids import in_order
from loraplex.keys import Lane
from loraplex.messages import TokenEvent

log = logging.getLogger(__name__)

KEPT_NO_LONGER, LOST = "answer_expired", "request_lost"
_REASONS = {
    KEPT_NO_LONGER: "The rest of this answer is kept no longer.",
    LOST: "This request was lost with the queue's machine. Send it again.",
}
PAGE = 256  # entries; each has a token or so of every request that runs


class _Lane:
    def __init__(self) -> None:
        self.behind: set[Waiting] = set()
        self.reading = asyncio.Lock()


class CatchUp:
    def __init__(self, broker: ApiBroker) -> None:
        self._broker = broker
        self._lanes: dict[Lane, _Lane] = {}

    async def read(self, waiting: Waiting) -> None:
        """Returns when it has events, or the journal has no more of them. Waits out Redis."""
        lane = self._lanes.setdefault(waiting.lane, _Lane())
        lane.behind.add(waiting)
        try:
            # Page by page in turn; another's page may serve this one, too.
            while waiting.behind and not waiting.ready:
                async with lane.reading:
                    if waiting.behind and not waiting.ready:
                        await self._page(waiting, lane.behind)
        finally:
            if waiting.ended or not waiting.behind:
                self.forget(waiting)

    def forget(self, waiting: Waiting) -> None:
        """It is not behind any more, or nobody reads it."""
        lane = self._lanes.get(waiting.lane)
        if lane is not None:
            lane.behind.discard(waiting)
            if not lane.behind:
                del self._lanes[waiting.lane]

    async def _page(self, reader: Waiting, behind: Iterable[Waiting]) -> None:
        start = in_order(reader.cursor)
        served = [each for each in behind if each.behind and in_order(each.cursor) >= start]
        # Cleared before the page is asked for: what comes meanwhile over the channel and is beyond
        # a gap then sets it again.
        for waiting in served:
            waiting.behind = False
        over = [waiting for waiting in served if waiting.over]
        try:
            page = await self._broker.journal_page(reader.lane, reader.cursor, PAGE)
        except BaseException as failed:
            for waiting in served:
                waiting.fall_behind()
            if not isinstance(failed, Unavailable):
                raise
            log.warning("journal not readable, trying again: %s", failed)
            await asyncio.sleep(random.uniform(0.2, 1.0))
            return
        _hand_out(page, served)
        if page.more:
            for waiting in served:
                waiting.fall_behind()
            return
        for waiting in over:
            if not waiting.ended and not waiting.behind:
                waiting.accept(_cut_off(waiting, waiting.over), "")


def _hand_out(page: Page, served: list[Waiting]) -> None:
    by_request: dict[str, list[tuple[Waiting, tuple[int, int]]]] = {}
    for waiting in served:
        by_request.setdefault(waiting.request, []).append((waiting, in_order(waiting.after)))
    full: set[Waiting] = set()
    for entry, step in page.steps:
        at = in_order(entry)
        for event in step.events:
            for waiting, after in by_request.get(event.request, ()):
                if at <= after:
                    continue  # of an earlier request with the same Idempotency-Key
                if waiting.full:  # its cursor stays here
                    waiting.fall_behind()
                    full.add(waiting)
                elif event.position <= waiting.position:
                    waiting.accept(event, entry)
                elif event.tokens:
                    waiting.accept(_cut_off(waiting, KEPT_NO_LONGER), entry)
                else:  # not a replica's: it ends the answer wherever that is
                    end = msgspec.structs.replace(event, position=waiting.position)
                    waiting.accept(end, entry)
    for waiting in served:
        if page.last is not None and waiting not in full:
            waiting.passed(page.last)


def _cut_off(waiting: Waiting, code: str) -> TokenEvent:
    place = (waiting.request, waiting.position)
    return TokenEvent(*place, [], "error", _REASONS[code], code)
