"""An admitted request → Server-Sent Events.

The `id:` of an event is `request:position`, or `request:12.9` for several answers: what the client
has when it has this event. Positions count tokens; the one after the last is the end, the one after
that the usage. A client that was cut off sends the last one back as `Last-Event-ID`.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from api.errors import ApiError
from api.requests.admission import Admitted
from api.requests.generation import Generation, Piece
from api.state import State


class Event(NamedTuple):
    data: dict[str, Any]
    position: int  # of its answer


def stream(
    state: State,
    admitted: Admitted,
    opening: list[dict[str, Any]],
    chunks: Callable[[int, Piece], list[Event]],
    closing: Callable[[], list[dict[str, Any]]],
) -> EventSourceResponse:
    """Answer with `opening`, each piece's chunks, `closing`, then [DONE]; without what the client
    has received."""
    ongoing, received = admitted.ongoing, admitted.received
    positions = list(received or [0] * admitted.shown.answers)
    generation = Generation(state.inflight, admitted)
    ends = [0] * len(positions)
    left = False

    def leave(served: bool) -> None:
        nonlocal left
        if not left:
            left = True
            (state.inflight.done if served else state.inflight.gone)(ongoing)

    def event(data: dict[str, Any]) -> ServerSentEvent:
        at = ".".join(map(str, positions))
        return _event(data, f"{admitted.shown.request}:{at}")

    async def events() -> AsyncIterator[ServerSentEvent]:
        served = False
        try:
            for first in opening if received is None else ():
                yield event(first)
            async for index, piece in generation.pieces():
                ends[index] = piece.position + 1
                for data, position in chunks(index, piece):
                    positions[index] = position
                    yield event(data)
            if received is None or not all(a > b for a, b in zip(positions, ends, strict=True)):
                positions[:] = [end + 1 for end in ends]
                for last in closing():
                    yield event(last)
            served = True
            yield ServerSentEvent("[DONE]", sep="\n")
        except ApiError as failed:  # the status line is sent: an error event is what is left
            served = True
            yield _event(failed.body, None)
        finally:
            leave(served)

    async def gone(_: Any) -> None:
        """Also when the client leaves before the first event is asked for."""
        leave(served=False)

    return EventSourceResponse(
        events(),
        sep="\n",
        client_close_handler_callable=gone,
        ping=int(max(1, state.settings.heartbeat_s)),
        ping_message_factory=lambda: _heartbeat(admitted),  # type: ignore[arg-type, return-value]
        send_timeout=state.settings.send_timeout_s,
        headers={"x-request-id": admitted.shown.request, "cache-control": "no-cache"},
    )


def _heartbeat(admitted: Admitted) -> bytes:
    """A comment line without the blank line that ends an event.

    The OpenAI SDK keeps the last `id:`, as the specification says, and takes a blank line after
    it for an (empty) event, which it then fails to parse.
    """
    started = any(answer.position for answer in admitted.ongoing.answers)
    return b": running\n" if started else b": queued, waiting for a replica\n"


def _event(data: dict[str, Any], id_: str | None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, ensure_ascii=False), id=id_, sep="\n")


async def until_gone(request: Request) -> None:
    """Returns when the client has closed its connection (for answers that don't stream)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
