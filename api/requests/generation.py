"""An admitted request → pieces of text, in order, until all of its answers have ended."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool
from tokenizers import Tokenizer

from api.errors import ApiError, generation_failed
from api.requests.admission import Generation
from api.requests.detokenize import Detokenizer
from loraplex.messages import Logprobs, TokenEvent

_LATE_S = 5.0  # the replica answers expired requests itself; this is for when none can


class KnownToken(NamedTuple):
    """`offset`: characters of the text before it. Of a prompt's first token nothing is known."""

    token: int
    offset: int
    logprobs: Logprobs | None


@dataclass(frozen=True, slots=True)
class Piece:
    """`position`: tokens received so far. `finish` is set on the last piece only."""

    position: int
    text: str
    finish: str | None = None  # "stop" or "length"
    logprobs: list[KnownToken] = field(default_factory=list)  # where asked
    scores: list[Logprobs] | None = None  # of the prompt, on the first piece of its first answer
    prompt: list[KnownToken] = field(default_factory=list)  # made of them, on all first pieces


async def pieces(answers: Sequence[Generation], n: int) -> AsyncIterator[tuple[int, Piece]]:
    """Pieces of all answers as they come, `n` to a prompt, each with the index of its answer.

    Raises ApiError when one fails. The caller leaves the request (`Admitted.leave`) however this
    ends: that frees its slots.
    """
    found = _one(answers[0]) if len(answers) == 1 else _merged(answers)
    async for each in _with_prompts(found, answers, n) if answers[0].scored else found:
        yield each


async def _one(answer: Generation) -> AsyncIterator[tuple[int, Piece]]:
    async for piece in _pieces(answer):
        yield 0, piece


async def _merged(answers: Sequence[Generation]) -> AsyncIterator[tuple[int, Piece]]:
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


async def _with_prompts(
    found: AsyncIterator[tuple[int, Piece]], answers: Sequence[Generation], n: int
) -> AsyncIterator[tuple[int, Piece]]:
    """What is known of a prompt comes with its first answer; the others wait for it."""
    prompts: dict[int, list[KnownToken]] = {}
    held: dict[int, list[tuple[int, Piece]]] = {}
    begun: set[int] = set()
    async for index, piece in found:
        first = index - index % n
        held.setdefault(first, []).append((index, piece))
        if first not in prompts:
            if index != first:
                continue
            generation = answers[first]
            prompts[first] = await run_in_threadpool(
                _known, generation.served.tokenizer, generation.prompt, piece.scores
            )
        for each, ready in sorted(held.pop(first), key=lambda pair: pair[0] != first):
            yield each, ready if each in begun else replace(ready, prompt=prompts[first])
            begun.add(each)


def _known(tokenizer: Tokenizer, ids: list[int], scores: list[Logprobs] | None) -> list[KnownToken]:
    if len(scores or ()) != len(ids) - 1:
        message = "This replica is too old to give log-probabilities of a prompt."
        raise ApiError(503, "server_error", message, retry_after_s=30)
    decoder = Detokenizer(tokenizer)
    known = []
    for token, logprobs in zip(ids, [None, *(scores or ())], strict=True):
        known.append(KnownToken(token, decoder.length, logprobs))
        decoder.feed(token)
    return known


async def _pieces(answer: Generation) -> AsyncIterator[Piece]:
    decoder = Detokenizer(answer.served.tokenizer, answer.stop)
    position = 0
    while True:
        event = await _next(answer)
        if event.finish in ("error", "expired", "cancelled"):
            code = event.error_code or event.finish
            raise generation_failed(code, event.error or f"The request has {_END[event.finish]}.")
        if answer.silent:
            yield Piece(0, "", "length", scores=event.prompt_logprobs)
            return
        text = ""
        known: list[KnownToken] = []
        for index, token in enumerate(event.tokens):
            if event.logprobs is not None:
                known.append(KnownToken(token, decoder.length, event.logprobs[index]))
            text += decoder.feed(token)
            position += 1
            if decoder.stopped:
                break
        finish = "stop" if decoder.stopped else event.finish
        if finish:
            text += decoder.flush()
        yield Piece(position, text, finish, known, event.prompt_logprobs)
        if finish:
            return


_END = {"expired": "passed its deadline", "cancelled": "been cancelled", "error": "failed"}


async def _next(answer: Generation) -> TokenEvent:
    left = answer.deadline + _LATE_S - time.time()
    try:
        return await asyncio.wait_for(answer.waiting.events.get(), max(left, 0))
    except TimeoutError:
        return TokenEvent(answer.waiting.request, answer.waiting.position, [], "expired")
