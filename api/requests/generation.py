"""An admitted request → pieces of text, in order, until it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from api.errors import generation_failed
from api.requests.admission import Admitted
from api.requests.detokenize import Detokenizer
from loraplex.messages import TokenEvent

_LATE_S = 5.0  # the replica answers expired requests itself; this is for when none can


@dataclass(frozen=True, slots=True)
class Piece:
    """`position`: tokens received so far. `finish` is set on the last piece only."""

    position: int
    text: str
    finish: str | None = None  # "stop" or "length"


async def pieces(admitted: Admitted) -> AsyncIterator[Piece]:
    """Text as it comes. Raises ApiError when the generation fails.

    The caller leaves the request (`Inflight.leave`) however this ends: that frees its slot.
    """
    decoder = Detokenizer(admitted.served.tokenizer, admitted.request.stop)
    while True:
        event = await _next(admitted)
        if event.finish in ("error", "expired", "cancelled"):
            code = event.error_code or event.finish
            raise generation_failed(code, event.error or f"The request has {_END[event.finish]}.")
        text = decoder.feed(event.tokens)
        position = event.position + len(event.tokens)
        if decoder.stopped:
            yield Piece(position, text, "stop")
            return
        if event.finish:
            yield Piece(position, text + decoder.flush(), event.finish)
            return
        yield Piece(position, text)


_END = {"expired": "passed its deadline", "cancelled": "been cancelled", "error": "failed"}


async def _next(admitted: Admitted) -> TokenEvent:
    left = admitted.deadline + _LATE_S - time.time()
    try:
        return await asyncio.wait_for(admitted.waiting.events.get(), max(left, 0))
    except TimeoutError:
        position = admitted.waiting.position
        return TokenEvent(admitted.id, position, [], "expired")
