"""sse-starlette's response with heartbeats that are asked for, and a bound on its sends that costs
nothing when they don't wait."""

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message, Send

from loraplex.settings import ApiSettings


class EventStream(EventSourceResponse):
    def __init__(
        self, *args: Any, heartbeat: Callable[[], Awaitable[bytes]], **options: Any
    ) -> None:
        """`heartbeat`: what is sent when `ping` seconds have passed, and again and again."""
        super().__init__(*args, **options)
        self._heartbeat = heartbeat

    async def _ping(self, send: Send) -> None:
        """sse-starlette's with a message that is asked for."""
        while self.active:
            await anyio.sleep(self._ping_interval)
            body = await self._heartbeat()
            async with self._send_lock:
                if self.active:
                    message = {"type": "http.response.body", "body": body, "more_body": True}
                    await self._send_with_timeout(send, message)

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Most sends only write into a socket's buffer; a cancel scope around each of them would be
        a quarter of what an event costs."""
        sending: Any = send(message)
        try:
            waits_for = sending.send(None)
        except StopIteration:
            return
        with anyio.move_on_after(self.send_timeout) as scope:
            await _rest(sending, waits_for)
        if scope.cancel_called:
            raise SendTimeoutError()


def following(settings: ApiSettings, events: AsyncIterator[ServerSentEvent]) -> EventStream:
    """What goes on until its reader leaves: with a comment now and then, and a bound on sends."""
    return EventStream(
        events,
        ping=int(max(1, settings.heartbeat_s)),
        heartbeat=_still_here,
        send_timeout=settings.send_timeout_s,
    )


async def _still_here() -> bytes:
    return b": still here\n"


@types.coroutine
def _rest(begun: Coroutine[Any, None, None], waits_for: Any) -> Generator[Any, None, None]:
    """Go on with a coroutine that was run up to its first wait."""
    try:
        yield waits_for
    except BaseException:
        begun.close()
        raise
    yield from begun.__await__()
