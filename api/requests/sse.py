"""An admitted request → Server-Sent Events.

The `id:` of an event is `request:position`, or `request:12.9` for several answers: what the client
has when it has this event. Positions count tokens; the one after the last is the end, the one after
that the usage. A client that was cut off sends the last one back as `Last-Event-ID`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import msgspec

from api.errors import ApiError, bad_request
from api.requests.admission import Admitted
from api.requests.event_stream import EventStream
from api.requests.generation import Generation, Piece
from api.state import State

_MOST_BYTES = 16 * 1024  # in one send: a slow client must get that far within the timeout


class Event(NamedTuple):
    data: dict[str, Any]
    position: int  # of its answer


def stream(
    state: State,
    admitted: Admitted,
    opening: list[dict[str, Any]],
    chunks: Callable[[int, Piece], list[Event]],
    closing: Callable[[], list[dict[str, Any]]],
    failed: Callable[[ApiError], dict[str, Any]] = lambda error: error.body,
    end: bytes = b"data: [DONE]\n\n",
    *,
    named: bool = False,
) -> EventStream:
    """Answer with `opening`, each piece's chunks and `closing`, without what the client has
    received, or with what `failed` makes of an error; then with `end`. `named`: events are of the
    type that their data have."""
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

    def event(data: dict[str, Any]) -> bytes:
        at = ".".join(map(str, positions))
        return encode(data, f"{admitted.shown.request}:{at}", data["type"] if named else "")

    async def events() -> AsyncIterator[bytes]:
        served = False
        try:
            if admitted.place is not None:
                yield f": {admitted.place.text}\n".encode()
            for first in opening if received is None else ():
                yield event(first)
            async for pieces in generation.pieces():
                written = bytearray()
                for index, piece in pieces:
                    ends[index] = piece.position + 1
                    for data, position in chunks(index, piece):
                        positions[index] = position
                        written += event(data)
                        if len(written) > _MOST_BYTES:
                            yield bytes(written)
                            written.clear()
                if written:
                    yield bytes(written)
            if received and any(at > end + 1 for at, end in zip(received, ends, strict=True)):
                raise bad_request("Last-Event-ID is beyond the answer's end.", "Last-Event-ID")
            if received is None or not all(a > b for a, b in zip(positions, ends, strict=True)):
                positions[:] = [end + 1 for end in ends]
                for last in closing():
                    yield event(last)
            served = True
            if end:
                yield end
        except ApiError as error:  # the status line is sent: an error event is what is left
            served = True
            data = failed(error)
            yield encode(data, name=data["type"] if named else "") + end
        finally:
            leave(served)

    async def gone(_: Any) -> None:
        """Also when the client leaves before the first event is asked for."""
        leave(served=False)

    return EventStream(
        events(),
        client_close_handler_callable=gone,
        ping=int(max(1, state.settings.heartbeat_s)),
        heartbeat=lambda: _heartbeat(state, admitted),
        send_timeout=state.settings.send_timeout_s,
        headers={**admitted.headers, "cache-control": "no-cache"},
    )


async def _heartbeat(state: State, admitted: Admitted) -> bytes:
    """A comment line without the blank line that ends an event.

    The OpenAI SDK keeps the last `id:`, as the specification says, and takes a blank line after
    it for an (empty) event, which it then fails to parse.
    """
    first = admitted.ongoing.answers[0]
    if any(answer.position for answer in admitted.ongoing.answers) or first.entry is None:
        return b": running\n"
    place = await state.queues.place(admitted.ongoing.lane, first.entry)
    return f": {place.text if place else 'taken by a replica'}\n".encode()


def encode(data: dict[str, Any], id_: str = "", name: str = "") -> bytes:
    """One event. JSON has no line breaks of its own."""
    head = f"id: {id_}\ndata: " if id_ else "data: "
    if name:
        head = f"event: {name}\n{head}"
    return head.encode() + msgspec.json.encode(data) + b"\n\n"
