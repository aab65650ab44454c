"""Before any route: a request's id, its key's tenant, and a bound on its body."""

import asyncio
import secrets
from contextlib import suppress

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from api import errors
from api.console import session
from api.keyring import Caller, Keyring
from api.metrics import ApiMetrics
from api.security import is_open

_DRAIN_S = 5.0
_UPLOADS = ("/api/v1/adapters", "/api/v1/datasets", "/v1/files", "/transfers/")


class Gate:
    """Before the body is read: a request id, the key's tenant, and a bound on the body.

    Plain ASGI: Starlette's function middleware stands between a stream and its client's going, and
    FastAPI reads and parses a body before any dependency is asked.
    """

    def __init__(
        self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int, metrics: ApiMetrics
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(12)
        request = Request(scope)
        request.state.request_id = request_id
        clear_contextvars()
        bind_contextvars(request=request_id)

        measure = self._metrics.begin()
        body = _Body(receive, self._limit(request))

        # The only layer of ours that each event of a stream goes through.
        async def named(message: Message) -> None:
            if not measure.first_at:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).setdefault("x-request-id", request_id)
                    measure.begins(message["status"])
                elif message.get("body"):
                    measure.first_byte()
            if not body.ended and _is_last(message):
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await self._let_in(request, body, named)
        finally:
            measure.ended(scope)

    async def _let_in(self, request: Request, body: "_Body", named: Send) -> None:
        scope = request.scope
        try:
            request.state.caller = caller = await self._caller(request)
            announced = self._announced(request)
            body.ended = not announced or "expect" in request.headers  # it comes when asked for
            if isinstance(caller, errors.ApiError) and announced and not is_open(scope["path"]):
                raise caller
            if announced > body.limit:
                raise _too_large(body.limit)
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                raise errors.bad_request("The URL holds a NUL character.")
        except errors.ApiError as refused:
            await errors.render(request, refused)(scope, body.receive, named)
            return
        await self._app(scope, body.receive, named)

    async def _caller(self, request: Request) -> Caller | errors.ApiError:
        keyring: Keyring = request.app.state.loraplex.keyring
        try:
            key = request.headers.get("authorization") or session.authorization(request)
            request.state.authorization = key
            known = keyring.remembered(key)
            return known if known is not None else await run_in_threadpool(keyring.find, key)
        except errors.ApiError as refused:  # routes that are open to all don't ask
            return refused
        except errors.DATABASE_AWAY:
            return errors.database_away()

    def _limit(self, request: Request) -> int:
        uploads = request.scope["path"].startswith(_UPLOADS)
        return self._max_upload_bytes if uploads else self._max_body_bytes

    @staticmethod
    def _announced(request: Request) -> int:
        """Bytes of the body; -1 when it doesn't tell. Raises ApiError."""
        if "transfer-encoding" in request.headers:
            return -1
        size = request.headers.get("content-length", "0")
        if not size.isdecimal() or len(size) > 18:
            raise errors.bad_request("content-length is not a number.")
        return int(size)


class _Body:
    """Of a request: bounded also where it doesn't tell its length."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._received = 0
        self.limit = limit
        self.ended = False  # nothing of it is under way

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = not message.get("more_body")
        self._received += len(message.get("body", b""))
        if self._received > self.limit:
            raise HTTPException(413, _too_large(self.limit).message)
        return message

    async def drain(self) -> None:
        """Where it is refused unread, a connection that is closed at once would be reset: the
        client loses the answer, a proxy takes this process for dead (RFC 9112, section 9.6)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while not self.ended:
                    self.ended = not (await self._receive()).get("more_body")


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


def _too_large(limit: int) -> errors.ApiError:
    return errors.ApiError(413, "body_too_large", f"The request body is over {limit} bytes.")
