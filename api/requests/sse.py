"""Server-sent events: `id: request:position`, heartbeats, errors in mid-stream, [DONE].

Of several answers the id has each one's position: `request:12.9`.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.errors import ApiError
from api.requests.admission import Admitted
from api.requests.generation import Piece, pieces
from api.state import State


def stream(
    state: State,
    admitted: Admitted,
    opening: list[dict[str, Any]],
    chunk: Callable[[int, Piece], list[dict[str, Any]]],
    closing: Callable[[], list[dict[str, Any]]],
) -> EventSourceResponse:
    """Answer with `opening` chunks, each piece's chunks, `closing` ones, then [DONE]."""
    positions = [0] * len(admitted.answers)

    def id_() -> str:
        return f"{admitted.id}:{'.'.join(map(str, positions))}"

    async def events() -> AsyncIterator[ServerSentEvent]:
        try:
            for first in opening:
                yield _event(first, id_())
            async for index, piece in pieces(admitted.answers, admitted.request.n):
                positions[index] = piece.position
                for data in chunk(index, piece):
                    yield _event(data, id_())
            for data in closing():
                yield _event(data, id_())
            yield ServerSentEvent("[DONE]", sep="\n")
        except ApiError as failed:  # the status line is sent: an error event is what is left
            yield _event(failed.body, None)
        finally:
            admitted.leave(state.inflight)

    async def gone(_: Any) -> None:
        """Also when the client leaves before the first event is asked for."""
        admitted.leave(state.inflight)

    return EventSourceResponse(
        events(),
        sep="\n",
        client_close_handler_callable=gone,
        ping=int(max(1, state.settings.heartbeat_s)),
        ping_message_factory=lambda: _heartbeat(admitted),  # type: ignore[arg-type, return-value]
        headers={"x-request-id": admitted.id, "cache-control": "no-cache"},
    )


def _heartbeat(admitted: Admitted) -> bytes:
    """A comment line without the blank line that ends an event.

    The OpenAI SDK keeps the last `id:`, as the specification says, and takes a blank line after
    it for an (empty) event, which it then fails to parse.
    """
    started = any(answer.waiting.position for answer in admitted.answers)
    return b": running\n" if started else b": queued, waiting for a replica\n"


def _event(data: dict[str, Any], id_: str | None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, ensure_ascii=False), id=id_, sep="\n")


async def until_gone(request: Request) -> None:
    """Returns when the client has closed its connection (for answers that don't stream)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
