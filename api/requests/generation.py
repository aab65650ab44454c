"""An admitted request → pieces of text, in order, until all of its answers have ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from api.errors import generation_failed
from api.requests.admission import Generation
from api.requests.detokenize import Detokenizer
from loraplex.messages import Logprobs, TokenEvent

_LATE_S = 5.0  # the replica answers expired requests itself; this is for when none can


@dataclass(frozen=True, slots=True)
class Piece:
    """`position`: tokens received so far. `finish` is set on the last piece only."""

    position: int
    text: str
    finish: str | None = None  # "stop" or "length"
    logprobs: list[tuple[int, Logprobs]] = field(default_factory=list)  # token ids, where asked
    prompt_logprobs: list[Logprobs] | None = None  # on the first piece, where asked


async def pieces(answers: Sequence[Generation]) -> AsyncIterator[tuple[int, Piece]]:
    """Pieces of all answers as they come, each with the index of its answer.

    Raises ApiError when one fails. The caller leaves the request (`Admitted.leave`) however this
    ends: that frees its slots.
    """
    if len(answers) == 1:
        async for piece in _pieces(answers[0]):
            yield 0, piece
        return
    queue: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue()

    async def pump(index: int) -> None:
        try:
            async for piece in _pieces(answers[index]):
                queue.put_nowait((index, piece))
        except Exception as failed:  # raised to the reader
            queue.put_nowait(failed)

    tasks = [asyncio.create_task(pump(index)) for index in range(len(answers))]
    try:
        left = len(answers)
        while left:
            got = await queue.get()
            if isinstance(got, Exception):
                raise got
            yield got
            left -= got[1].finish is not None
    finally:
        for task in tasks:
            task.cancel()


async def _pieces(answer: Generation) -> AsyncIterator[Piece]:
    decoder = Detokenizer(answer.served.tokenizer, answer.stop)
    while True:
        event = await _next(answer)
        if event.finish in ("error", "expired", "cancelled"):
            code = event.error_code or event.finish
            raise generation_failed(code, event.error or f"The request has {_END[event.finish]}.")
        if answer.silent:
            yield Piece(0, "", "length", prompt_logprobs=event.prompt_logprobs)
            return
        text = decoder.feed(event.tokens)
        position = event.position + len(event.tokens)
        logprobs = list(zip(event.tokens, event.logprobs or (), strict=False))
        finish = "stop" if decoder.stopped else event.finish
        if finish and not decoder.stopped:
            text += decoder.flush()
        yield Piece(position, text, finish, logprobs, event.prompt_logprobs)
        if finish:
            return


_END = {"expired": "passed its deadline", "cancelled": "been cancelled", "error": "failed"}


async def _next(answer: Generation) -> TokenEvent:
    left = answer.deadline + _LATE_S - time.time()
    try:
        return await asyncio.wait_for(answer.waiting.events.get(), max(left, 0))
    except TimeoutError:
        return TokenEvent(answer.waiting.request, answer.waiting.position, [], "expired")
