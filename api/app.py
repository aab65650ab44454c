"""Build the application: what it holds, its routers, its middleware."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors
from api.control import adapters, deployments
from api.openai import chat, completions, models
from api.requests.inflight import Inflight
from api.requests.models import ServedModels
from api.state import State, StateDep
from loraplex import __version__
from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import connect_async
from loraplex.database import connect
from loraplex.settings import ApiSettings
from loraplex.store.adapters import AdapterStore
from loraplex.store.models import ModelStore

log = logging.getLogger(__name__)


def build(settings: ApiSettings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        broker = ApiBroker(connect_async(settings.redis_url), f"api-{secrets.token_hex(6)}")
        inflight = Inflight(broker)
        app.state.loraplex = State(
            settings=settings,
            database=connect(settings.database),
            broker=broker,
            inflight=inflight,
            models=ModelStore(settings.models_dir, allow_local=settings.allow_local_models),
            served=ServedModels(),
            adapters=AdapterStore(settings.adapters_dir),
        )
        feeding = asyncio.create_task(inflight.run())
        yield
        feeding.cancel()
        with suppress(asyncio.CancelledError):
            await feeding
        await broker.aclose()

    app = FastAPI(title="Loraplex", version=__version__, lifespan=lifespan)
    errors.install(app)
    app.add_middleware(RequestIds, max_body_bytes=settings.max_body_bytes)
    app.add_api_route("/health", health, include_in_schema=False)
    openai = APIRouter(prefix="/v1")
    for router in (chat.router, completions.router, models.router):
        openai.include_router(router)
    control = APIRouter(prefix="/api/v1")
    for router in (deployments.router, adapters.router):
        control.include_router(router)
    app.include_router(openai)
    app.include_router(control)
    return app


async def health(state: StateDep) -> dict[str, str]:
    """Open to all: is this process able to take requests?"""
    await state.broker.ping()
    return {"status": "ok", "version": __version__}


class RequestIds:
    """Gives each request an id and its header; refuses bodies over the bound before they are read.

    Plain ASGI: Starlette's function middleware stands between a stream and its client's going.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
            await send(message)

        received = 0

        async def bounded() -> Message:
            """For bodies that don't tell their length."""
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body_bytes:
                raise errors.ApiError(413, "body_too_large", "The request body is too large.")
            return message

        size = Headers(scope=scope).get("content-length", "0")
        if not size.isdecimal() or int(size) > self._max_body_bytes:
            too_large = errors.ApiError(413, "body_too_large", "The request body is too large.")
            await errors.render(Request(scope), too_large)(scope, receive, named)
            return
        await self._app(scope, bounded, named)
