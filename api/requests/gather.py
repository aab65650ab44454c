"""An admitted request → all of its pieces at once, for answers that don't stream."""

import asyncio
from collections.abc import Callable

from fastapi import Request

from api.requests.admission import Admitted
from api.requests.generation import Generation, Piece
from api.state import State


async def gather(
    state: State, http: Request, admitted: Admitted, add: Callable[[int, Piece], None]
) -> None:
    """Give each piece to `add`, with the index of its answer, until all have ended or the client
    has gone. Raises ApiError."""

    async def collect() -> None:
        async for pieces in Generation(state.inflight, admitted).pieces():
            for index, piece in pieces:
                add(index, piece)

    work = asyncio.create_task(collect())
    gone = asyncio.create_task(_until_gone(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        served = work.done()
        work.cancel()
        gone.cancel()
        (state.inflight.done if served else state.inflight.gone)(admitted.ongoing)


async def _until_gone(http: Request) -> None:
    """Returns when the client has closed its connection."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
