"""One way to answer, for chat and completions: stream it, or gather it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from tokenizers import Tokenizer

from api.openai.logprobs import Known
from api.requests.admission import Admitted
from api.requests.generation import KnownToken, Piece, pieces
from api.requests.sse import stream, until_gone
from api.state import State


class MakeChoice(Protocol):
    def __call__(
        self, index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None
    ) -> dict[str, Any]:
        """One entry of `choices`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the two endpoints."""

    whole: str  # object names
    chunk: str
    id_prefix: str
    whole_choice: MakeChoice
    chunk_choice: MakeChoice
    logprobs: Callable[[Tokenizer, Known], dict[str, Any]]
    opening: Callable[[int], dict[str, Any]] | None = None  # the first chunk's choice


@dataclass(slots=True)
class _Answer:
    """One choice as far as it has come."""

    text: str = ""
    finish: str | None = None
    tokens: int = 0
    prompt: list[KnownToken] = field(default_factory=list)  # if it is scored
    logprobs: list[KnownToken] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.finish = piece.finish
        self.tokens = piece.position
        self.prompt += piece.prompt
        self.logprobs += piece.logprobs

    @property
    def likelihood(self) -> float:
        """Mean log-probability of its tokens."""
        return sum(each.logprobs.chosen for each in self.logprobs if each.logprobs) / max(
            1, len(self.logprobs)
        )


async def answer(
    state: State,
    http: Request,
    admitted: Admitted,
    shape: Shape,
    *,
    streamed: bool,
    include_usage: bool,
    prefixes: Sequence[str] = (),
    best: int | None = None,
    logprobs: bool | None = None,
) -> Response:
    """The response of an admitted request. Raises ApiError when it fails before it is sent.

    `prefixes`: text before each answer (`echo`); `best`: of each prompt's answers only so many, the
    likeliest, where there is no stream; `logprobs`: whether they are shown, if not as asked for.
    """
    head = {
        "id": f"{shape.id_prefix}{admitted.id}",
        "created": admitted.created,
        "model": admitted.request.model,
        "system_fingerprint": None,
    }
    shown = admitted.request.logprobs is not None if logprobs is None else logprobs
    prefixes = prefixes or [""] * len(admitted.answers)
    answers = [_Answer() for _ in admitted.answers]
    scored = admitted.request.prompt_logprobs is not None  # the echo comes with the first piece

    def known(prompt: Known, output: Known, prefix: str) -> dict[str, Any] | None:
        if not shown:
            return None
        moved = (each._replace(offset=each.offset + len(prefix)) for each in output)
        return shape.logprobs(admitted.served.tokenizer, [*prompt, *moved])

    def whole() -> Response:
        kept = _best(answers, admitted.request.n, best or admitted.request.n)
        choices = [
            shape.whole_choice(
                *(index, prefixes[at] + answers[at].text, answers[at].finish),
                known(answers[at].prompt, answers[at].logprobs, prefixes[at]),
            )
            for index, at in enumerate(kept)
        ]
        body = head | {"object": shape.whole, "choices": choices}
        body["usage"] = _usage(admitted, answers)
        return JSONResponse(body, headers={"x-request-id": admitted.id})

    if not streamed:
        await _gather(state, http, admitted, answers)
        # Many log-probabilities take a while to write.
        return await run_in_threadpool(whole) if shown else whole()

    head |= {"object": shape.chunk} | ({"usage": None} if include_usage else {})

    def chunk(index: int, piece: Piece) -> list[dict[str, Any]]:
        chunks, so_far = [], answers[index]
        prefix = prefixes[index]
        so_far.add(piece)
        text = prefix + piece.text if piece.prompt else piece.text
        if text or (shown and piece.logprobs):
            of = known(piece.prompt, piece.logprobs, prefix)
            chunks.append(head | {"choices": [shape.chunk_choice(index, text, None, of)]})
        if piece.finish:
            last = shape.chunk_choice(index, "", piece.finish, None)
            chunks.append(head | {"choices": [last]})
        return chunks

    def closing() -> list[dict[str, Any]]:
        return [head | {"choices": [], "usage": _usage(admitted, answers)}] if include_usage else []

    opening = []
    for index, prefix in enumerate(prefixes):
        if shape.opening is not None:
            opening.append(head | {"choices": [shape.opening(index)]})
        if prefix and not scored:
            opening.append(head | {"choices": [shape.chunk_choice(index, prefix, None, None)]})
    return stream(state, admitted, opening, chunk, closing)


async def _gather(state: State, http: Request, admitted: Admitted, answers: list[_Answer]) -> None:
    """All pieces of all answers. The client's going cancels the request."""

    async def collect() -> None:
        async for index, piece in pieces(admitted.answers, admitted.request.n):
            answers[index].add(piece)

    work = asyncio.create_task(collect())
    gone = asyncio.create_task(until_gone(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        work.cancel()
        gone.cancel()
        admitted.leave(state.inflight)


def _best(answers: list[_Answer], n: int, kept: int) -> list[int]:
    """Of each `n` answers the `kept` likeliest, in the order of their prompts."""
    chosen: list[int] = []
    for start in range(0, len(answers), n):
        group = range(start, start + n)
        best = sorted(group, key=lambda i: -answers[i].likelihood) if kept < n else group
        chosen += best[:kept]
    return chosen


def _usage(admitted: Admitted, answers: list[_Answer]) -> dict[str, int]:
    produced = sum(each.tokens for each in answers)
    return {
        "prompt_tokens": admitted.prompt_tokens,
        "completion_tokens": produced,
        "total_tokens": admitted.prompt_tokens + produced,
    }
