"""An admitted request → all of its pieces at once, for answers that don't stream."""

import asyncio
import time
from collections.abc import Callable

from fastapi import Request

from api.requests.admission import Admitted
from api.requests.generation import Generation, Piece
from api.requests.later import Later, wait_of
from api.state import State


async def gather(
    state: State,
    http: Request,
    admitted: Admitted,
    add: Callable[[int, Piece], None],
    *,
    may_come_later: bool = True,
) -> bool:
    """Give each piece to `add`, with the index of its answer, until all have ended; False: the
    client has gone before. Raises ApiError, or Later when it doesn't want to wait that long and
    `may_come_later`."""
    wait_s = wait_of(http) if may_come_later else None

    async def collect() -> None:
        async for pieces in Generation(state.inflight, admitted).pieces():
            for index, piece in pieces:
                add(index, piece)

    work = asyncio.create_task(collect())
    gone = asyncio.create_task(_until_gone(http))
    asked_again = False
    try:
        either = asyncio.FIRST_COMPLETED
        done, _ = await asyncio.wait({work, gone}, timeout=wait_s, return_when=either)
        if not done and wait_s is not None:
            if _outlives(admitted) and not await _has_ended(state, admitted):
                asked_again = http.method == "GET"  # whoever sent it keeps it going
                first = admitted.ongoing.answers[0]
                place = await state.queues.place(first.lane, first.entry or "")
                raise Later(admitted.shown.request, wait_s, place)
            await asyncio.wait({work, gone}, return_when=either)
        if work.done():
            work.result()
        return work.done()
    finally:
        served = work.done() or asked_again
        work.cancel()
        gone.cancel()
        (state.inflight.done if served else state.inflight.gone)(admitted.ongoing)


def _outlives(admitted: Admitted) -> bool:
    """A request goes on until its deadline though nobody waits for it. One that was sent without
    `Prefer` doesn't: who asks for it with one must wait after all."""
    return time.time() + admitted.shown.grace_s > admitted.shown.deadline


async def _has_ended(state: State, admitted: Admitted) -> bool:
    lane = admitted.ongoing.answers[0].lane
    recorded = await state.broker.recorded(lane, admitted.shown.request)
    return recorded is None or await state.broker.state_of(lane, recorded.entries) == "ended"


async def _until_gone(http: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
