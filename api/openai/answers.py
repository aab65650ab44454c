"""One way to answer, for chat and completions: stream it, or gather it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from api.requests.admission import Admitted
from api.requests.generation import Piece, pieces
from api.requests.sse import stream, until_gone
from api.state import State

Choice = Callable[[str, str | None], dict[str, Any]]  # (text, finish reason) → one choice


@dataclass(frozen=True, slots=True)
class Shape:
    """What differs between the two endpoints."""

    whole: str  # object names
    chunk: str
    id_prefix: str
    whole_choice: Choice
    chunk_choice: Choice
    opening: dict[str, Any] | None  # the first chunk's choice


async def answer(
    state: State,
    http: Request,
    admitted: Admitted,
    shape: Shape,
    *,
    streamed: bool,
    include_usage: bool,
) -> Response:
    """The response of an admitted request. Raises ApiError when it fails before it is sent."""
    head = {
        "id": f"{shape.id_prefix}{admitted.id}",
        "created": admitted.created,
        "model": admitted.request.model,
        "system_fingerprint": None,
    }
    if not streamed:
        last = await _gather(state, http, admitted)
        body = head | {
            "object": shape.whole,
            "choices": [shape.whole_choice(last.text, last.finish)],
            "usage": _usage(admitted, last),
        }
        return JSONResponse(body, headers={"x-request-id": admitted.id})

    head |= {"object": shape.chunk} | ({"usage": None} if include_usage else {})

    def chunk(piece: Piece) -> list[dict[str, Any]]:
        chunks = []
        if piece.text:
            chunks.append(head | {"choices": [shape.chunk_choice(piece.text, None)]})
        if piece.finish:
            chunks.append(head | {"choices": [shape.chunk_choice("", piece.finish)]})
            if include_usage:
                chunks.append(head | {"choices": [], "usage": _usage(admitted, piece)})
        return chunks

    opening = [head | {"choices": [shape.opening]}] if shape.opening else []
    return stream(state, admitted, opening, chunk)


async def _gather(state: State, http: Request, admitted: Admitted) -> Piece:
    """All pieces as one. The client's going cancels the request."""

    async def collect() -> Piece:
        texts = []
        async for piece in pieces(admitted):
            texts.append(piece.text)
            if piece.finish:
                return Piece(piece.position, "".join(texts), piece.finish)
        raise AssertionError("a generation ends with a finish or an error")

    work = asyncio.create_task(collect())
    gone = asyncio.create_task(until_gone(http))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return Piece(0, "", "stop")  # nobody reads it
        return work.result()
    finally:
        work.cancel()
        gone.cancel()
        state.inflight.leave(admitted.waiting)


def _usage(admitted: Admitted, last: Piece) -> dict[str, int]:
    return {
        "prompt_tokens": admitted.prompt_tokens,
        "completion_tokens": last.position,
        "total_tokens": admitted.prompt_tokens + last.position,
    }
