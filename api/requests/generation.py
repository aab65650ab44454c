"""An admitted request → pieces of text, in order, until all of its answers have ended."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from fastapi.concurrency import run_in_threadpool
from opentelemetry import trace
from tokenizers import Tokenizer

from api.errors import ApiError, generation_failed
from api.requests.admission import Admitted
from api.requests.detokenize import Detokenizer
from api.requests.exchange import Exchange
from api.requests.inflight import Inflight
from api.requests.tool_calls import CallPart, ToolCallParser
from api.requests.tool_families import FAMILIES
from api.traces import delivered
from loraplex.messages import Logprobs, TokenEvent

_LATE_S = 5.0  # the replica answers expired requests itself; this is for when none can
_AHEAD = 64  # pieces of several answers that may wait for their reader


class KnownToken(NamedTuple):
    """`offset`: characters of the text before it. Of a prompt's first token nothing is known."""

    token: int
    offset: int
    logprobs: Logprobs | None
    text: str = ""  # what it adds; a character that takes several tokens comes with the last one


class Piece(NamedTuple):
    """`position`: tokens received so far. `finish` is set on the last piece only.

    Of what the client has already, text and log-probabilities are left out.
    """

    position: int
    text: str
    finish: str | None = None  # "stop", "length" or "tool_calls"
    logprobs: Sequence[KnownToken] = ()  # where asked
    scores: list[Logprobs] | None = None  # of the prompt, on the first piece of its first answer
    prompt: Sequence[KnownToken] = ()  # made of them, on all first pieces
    cached: int = 0  # of the prompt's tokens, were in the cache; on the first piece
    calls: Sequence[CallPart] = ()  # of tools
    embedding: bytes | None = None


class Generation:
    """The answers of an admitted request, as they come."""

    def __init__(self, inflight: Inflight, admitted: Admitted) -> None:
        self._inflight = inflight
        self._shown = admitted.shown
        self._tokenizer = admitted.served.tokenizer
        self._answers = admitted.ongoing.answers
        self._received = admitted.received or [-1] * len(self._answers)
        self._exchange = admitted.exchange

    def pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        """Pieces of all answers, as many as are there, each with the index of its answer.

        Raises ApiError when one fails. The caller tells `Inflight` when the client has gone or has
        all it needs: that frees its slots.
        """
        found = self._pieces(0) if len(self._answers) == 1 else self._merged()
        if self._shown.scored:
            found = self._with_prompts(found)
        if self._exchange:
            found = self._watched(found, self._exchange)
        return delivered(found) if trace.get_current_span().is_recording() else found

    @staticmethod
    async def _watched(
        found: AsyncIterator[list[tuple[int, Piece]]], exchange: Exchange
    ) -> AsyncIterator[list[tuple[int, Piece]]]:
        async for pieces in found:
            for _, piece in pieces:
                exchange.add(piece.text, calls=bool(piece.calls))
            yield pieces
        exchange.end()

    async def _merged(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        queue: asyncio.Queue[list[tuple[int, Piece]] | Exception | None] = asyncio.Queue(_AHEAD)

        async def pump(index: int) -> None:
            end: Exception | None = None
            try:
                async for pieces in self._pieces(index):
                    await queue.put(pieces)
            except Exception as failed:  # raised to the reader
                end = failed
            await queue.put(end)

        tasks = [asyncio.create_task(pump(index)) for index in range(len(self._answers))]
        try:
            left = len(tasks)
            while left:
                got = await queue.get()
                if isinstance(got, Exception):
                    raise got
                if got is None:
                    left -= 1
                else:
                    yield got
        finally:
            for task in tasks:
                task.cancel()

    async def _with_prompts(
        self, found: AsyncIterator[list[tuple[int, Piece]]]
    ) -> AsyncIterator[list[tuple[int, Piece]]]:
        """What is known of a prompt comes with its first answer; the others wait for it."""
        n = self._shown.n
        prompts: dict[int, list[KnownToken]] = {}
        held: dict[int, list[tuple[int, Piece]]] = {}
        begun = {index for index, position in enumerate(self._received) if position > 0}
        async for pieces in found:
            prompt, of_it = divmod(pieces[0][0], n)
            held.setdefault(prompt, []).extend(pieces)
            if prompt not in prompts:
                if of_it:
                    continue
                ids = self._shown.scored[prompt]
                prompts[prompt] = await run_in_threadpool(
                    _known, self._tokenizer, ids, pieces[0][1].scores
                )
            ready = []
            for each, piece in sorted(held.pop(prompt), key=lambda pair: pair[0] % n):
                first = each not in begun
                begun.add(each)
                ready.append((each, piece._replace(prompt=prompts[prompt]) if first else piece))
            yield ready

    async def _pieces(self, index: int) -> AsyncIterator[list[tuple[int, Piece]]]:
        shown, received = self._shown, self._received[index]
        keep_stop = shown.surface == "lorax"
        family = FAMILIES.get(shown.tools)
        parser = ToolCallParser(family) if family else None
        marks = (family.mark,) if family else ()
        decoder = Detokenizer(
            self._tokenizer, shown.stop, keep_stop=keep_stop, shown_specials=marks
        )
        deadline = shown.deadline + _LATE_S
        position = 0
        while True:
            pieces: list[tuple[int, Piece]] = []
            events = await self._inflight.next(self._answers[index], deadline)
            if shown.surface == "response":  # its events are numbered by tokens
                events = [each for event in events for each in event.each_token()]
            for event in events:
                if event.finish in ("error", "expired", "cancelled"):
                    if pieces:
                        yield pieces
                    raise _failure(event)
                if shown.silent:  # its one token counts as received, but isn't shown
                    finish = "length" if received <= 1 else None
                    piece = Piece(
                        *(1, "", finish),
                        scores=event.prompt_logprobs,
                        cached=event.cached,
                        embedding=event.embedding,
                    )
                    ended = True
                else:
                    piece, ended = _piece(decoder, event, position, received, parser)
                position = piece.position
                pieces.append((index, piece))
                if ended and event.finish is None:
                    self._answers[index].wanted = position
                if ended:
                    yield pieces
                    return
            yield pieces


def _piece(
    decoder: Detokenizer,
    event: TokenEvent,
    position: int,
    received: int,
    parser: ToolCallParser | None,
) -> tuple[Piece, bool]:
    """What an event shows of an answer that is at `position`; is it the answer's end?"""
    text = ""
    calls: list[CallPart] = []
    known: list[KnownToken] = []
    for number, token in enumerate(event.tokens):
        offset = decoder.length
        fresh = decoder.feed(token)
        position += 1
        parts: Sequence[CallPart] = ()
        if parser is not None:
            parsed = parser.feed(fresh)
            fresh, parts = parsed.text, parsed.calls
        if position > received:
            text += fresh
            calls += parts
            if event.logprobs is not None:
                known.append(KnownToken(token, offset, event.logprobs[number], decoder.latest))
        if decoder.stopped:
            break
    ended: str | None = "stop" if decoder.stopped else event.finish
    if ended and position > received:
        rest = decoder.flush()
        if parser is not None:
            parsed = parser.feed(rest)
            calls += parsed.calls
            rest = parsed.text + parser.flush().text
            if parser.count and ended == "stop" and not decoder.stopped:
                ended = "tool_calls"
        text += rest
    # The position after the last token is that of the end.
    finish = ended if received <= position else None
    scores, cached = event.prompt_logprobs, event.cached
    piece = Piece(position, text, finish, known, scores, cached=cached, calls=calls)
    return piece, ended is not None


def _failure(event: TokenEvent) -> ApiError:
    reasons = {"expired": "passed its deadline", "cancelled": "been cancelled", "error": "failed"}
    default = f"The request has {reasons[event.finish or 'error']}."
    return generation_failed(event.error_code or event.finish or "error", event.error or default)


def _known(tokenizer: Tokenizer, ids: list[int], scores: list[Logprobs] | None) -> list[KnownToken]:
    if len(scores or ()) != len(ids) - 1:
        message = "This replica is too old to give log-probabilities of a prompt."
        raise ApiError(503, "server_error", message, retry_after_s=30)
    decoder = Detokenizer(tokenizer)
    known = []
    for token, logprobs in zip(ids, [None, *(scores or ())], strict=True):
        offset = decoder.length
        decoder.feed(token)
        known.append(KnownToken(token, offset, logprobs, decoder.latest))
    return known
