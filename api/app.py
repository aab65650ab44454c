"""Build the application: what it holds, its routers, its middleware."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors, transfers
from api.batches.runner import BatchRunner
from api.captures.recorder import Recorder
from api.control import (
    adapters,
    aliases,
    base_models,
    captures,
    comparison,
    datasets,
    dead_letters,
    deployments,
    evaluations,
    explain,
    imports,
    keys,
    repos,
    requests,
    tenants,
    usage,
    webhooks,
)
from api.keyring import Caller, Keyring
from api.lorax import generate as lorax
from api.openai import batches, chat, completions, embeddings, files, fine_tuning, models
from api.openai.responses import routes as responses
from api.predibase import absent, account, finetuning
from api.predibase import datasets as predibase_datasets
from api.predibase import deployments as predibase
from api.predibase import repos as predibase_repos
from api.registry.imports import ImportEnds
from api.requests.inflight import Inflight
from api.requests.later import Later, come_later
from api.requests.merges import Merges
from api.requests.models import ServedModels
from api.requests.queues import Queues
from api.requests.resolver import Resolver
from api.security import authenticated, is_open
from api.state import State, StateDep
from loraplex import __version__, redaction
from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import connect_async
from loraplex.broker.limiter import Limiter
from loraplex.database import connect
from loraplex.registry import Registry
from loraplex.secret_box import SecretBox
from loraplex.settings import ApiSettings
from loraplex.store.adapters import store_of
from loraplex.store.files import FileStore
from loraplex.store.merged import MergedAdapters
from loraplex.store.models import ModelStore
from loraplex.store.staging import Staging

log = logging.getLogger(__name__)

_KEYS_WRITTEN_EACH_S = 30.0
_MOST_EXCHANGES = 1000  # that wait to be stored
_UPLOADS = ("/api/v1/adapters", "/api/v1/datasets", "/v1/files", "/transfers/")


def build(settings: ApiSettings) -> FastAPI:
    """Raises ValueError for a setting that can't be."""
    redact = redaction.load(settings.redact)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        redis = connect_async(settings.redis_url)
        broker = ApiBroker(redis, f"api-{secrets.token_hex(6)}")
        limiter = Limiter(redis)
        inflight = Inflight(broker, limiter)
        database = connect(settings.database)
        keyring = Keyring(database, settings.key_cache_s)
        models_here = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
        served = ServedModels()
        adapter_store = store_of(settings)
        most, most_bytes = settings.max_merges, settings.max_upload_bytes
        merged = MergedAdapters(adapter_store, settings.merged_dir, most, most_bytes)
        merges = Merges(merged, database, settings.storage_limit)
        app.state.loraplex = State(
            settings=settings,
            database=database,
            broker=broker,
            inflight=inflight,
            models=models_here,
            served=served,
            resolver=Resolver(database, models_here, served, merges),
            adapters=adapter_store,
            registry=Registry(database, adapter_store, models_here, settings.storage_limit),
            keyring=keyring,
            limiter=limiter,
            queues=Queues(broker),
            files=FileStore(settings.files_dir),
            imports=ImportEnds(database),
            staging=Staging(settings.uploads_dir),
            secrets=SecretBox(settings.secret_key, settings.secret_key_file),
            exchanges=asyncio.Queue(_MOST_EXCHANGES),
        )
        runner = BatchRunner(app.state.loraplex)
        recorder = Recorder(app.state.loraplex, redact)
        works = (inflight.run(), _keep_used(keyring), runner.run(), recorder.run())
        tasks = [asyncio.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await _write_used(keyring)
        await broker.aclose()

    app = FastAPI(
        title="Loraplex",
        version=__version__,
        lifespan=lifespan,
        dependencies=[Depends(authenticated)],
    )
    errors.install(app)
    app.add_exception_handler(Later, come_later)
    app.add_middleware(
        Gate,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
    app.add_api_route("/health", health, include_in_schema=False)
    openai = APIRouter(prefix="/v1")
    for module in (chat, completions, models, embeddings, responses, files, batches, fine_tuning):
        openai.include_router(module.router)
    control = APIRouter(prefix="/api/v1")
    for module in (
        deployments,
        explain,
        comparison,
        adapters,
        imports,
        base_models,
        aliases,
        repos,
        datasets,
        evaluations,
        captures,
        requests,
        dead_letters,
        keys,
        tenants,
        usage,
        webhooks,
    ):
        control.include_router(module.router)
    app.include_router(openai)  # first: a route is looked for in this order
    for prefix, parameters in lorax.PREFIXES:
        below = [Depends(parameters)]  # so that the API's document knows them
        app.include_router(lorax.router, prefix=prefix, dependencies=below)
        for module in (chat, completions, models, embeddings):
            app.include_router(module.router, prefix=f"{prefix}/v1", dependencies=below)
    for module in (
        account,
        predibase,
        predibase_repos,
        predibase_datasets,
        finetuning,
        absent,
        transfers,
    ):
        app.include_router(module.router)
    app.include_router(control)
    app.router.add_websocket_route(finetuning.STREAM, finetuning.stream_metrics)
    return app


async def _keep_used(keyring: Keyring) -> None:
    while True:
        await asyncio.sleep(_KEYS_WRITTEN_EACH_S)
        await _write_used(keyring)


async def _write_used(keyring: Keyring) -> None:
    try:
        await run_in_threadpool(keyring.write_used)
    except SQLAlchemyError as failed:
        log.warning("when keys were used could not be written: %s", failed)


async def health(state: StateDep) -> dict[str, str]:
    """Open to all: is this process able to take requests?"""
    await state.broker.ping()
    return {"status": "ok", "version": __version__}


class Gate:
    """Before the body is read: a request id, the key's tenant, and a bound on the body.

    Plain ASGI: Starlette's function middleware stands between a stream and its client's going, and
    FastAPI reads and parses a body before any dependency is asked.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(12)
        request = Request(scope)
        request.state.request_id = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-request-id", request_id)
            await send(message)

        try:
            request.state.caller = caller = await self._caller(request)
            limit, announced = self._limit(request), self._announced(request)
            if isinstance(caller, errors.ApiError) and announced and not is_open(scope["path"]):
                raise caller
            if announced > limit:
                raise _too_large(limit)
            if "\0" in scope["path"] or b"%00" in scope["query_string"]:
                raise errors.bad_request("The URL holds a NUL character.")
        except errors.ApiError as refused:
            await errors.render(request, refused)(scope, receive, named)
            return
        await self._app(scope, _bounded(receive, limit), named)

    async def _caller(self, request: Request) -> Caller | errors.ApiError:
        keyring: Keyring = request.app.state.loraplex.keyring
        key = request.headers.get("authorization", "")
        try:
            known = keyring.remembered(key)
            return known if known is not None else await run_in_threadpool(keyring.find, key)
        except errors.ApiError as refused:  # routes that are open to all don't ask
            return refused

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


def _bounded(receive: Receive, limit: int) -> Receive:
    """For bodies that don't tell their length."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, _too_large(limit).message)
        return message

    return bounded


def _too_large(limit: int) -> errors.ApiError:
    return errors.ApiError(413, "body_too_large", f"The request body is over {limit} bytes.")
