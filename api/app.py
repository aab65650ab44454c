"""Build the application: what it holds, its routers, its middleware."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError

from api import errors, traces, transfers
from api.batches.runner import BatchRunner
from api.captures.recorder import Recorder
from api.console import pages, session
from api.control import (
    adapters,
    aliases,
    base_models,
    captures,
    charts,
    comparison,
    datasets,
    dead_letters,
    deployments,
    evaluations,
    explain,
    imports,
    keys,
    live,
    logs,
    metrics,
    repos,
    requests,
    system,
    tenants,
    usage,
    webhooks,
)
from api.control.looks import Looks
from api.gate import Gate
from api.keyring import Keyring
from api.lorax import generate as lorax
from api.metrics import ApiMetrics
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
from api.security import authenticated
from api.state import State, StateDep
from loraplex import __version__, redaction, tracing
from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import connect as connect_sync
from loraplex.broker.connection import connect_async
from loraplex.broker.limiter import Limiter
from loraplex.database import connect
from loraplex.metrics.served import serving_metrics
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


def build(settings: ApiSettings) -> FastAPI:
    """Raises ValueError for a setting that can't be."""
    redact = redaction.load(settings.redact)
    measured = ApiMetrics()
    end_tracing = tracing.configure("api", settings)

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
            metrics=measured,
        )
        app.state.looks = Looks(app.state.loraplex)
        measured.watch(inflight)
        runner = BatchRunner(app.state.loraplex)
        recorder = Recorder(app.state.loraplex, redact)
        works = (inflight.run(), _keep_used(keyring), runner.run(), recorder.run())
        tasks = [asyncio.create_task(work) for work in works]
        with serving_metrics(measured.registry, settings, connect_sync(settings.redis_url), "api"):
            yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await _write_used(keyring)
        await broker.aclose()
        await run_in_threadpool(end_tracing)

    app = FastAPI(
        title="Loraplex",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the console's build has it
        redoc_url=None,
        # Its span of a request is enough; errors' texts may hold prompts.
        telemetry={
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": traces.left_out(settings),
        },
        dependencies=[Depends(authenticated)],
    )
    errors.install(app)
    app.add_exception_handler(Later, come_later)
    app.add_middleware(
        Gate,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        metrics=measured,
    )
    app.add_api_route("/health", health, include_in_schema=False)
    openai = APIRouter(prefix="/v1")
    for module in (chat, completions, models, embeddings, responses, files, batches, fine_tuning):
        openai.include_router(module.router)
    control = APIRouter(prefix="/api/v1")
    for module in (
        deployments,
        charts,
        logs,
        live,
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
        system,
        keys,
        tenants,
        usage,
        webhooks,
    ):
        control.include_router(module.router)
    control.include_router(metrics.targets_router)
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
        metrics,
        session,
    ):
        app.include_router(module.router)
    app.include_router(control)
    pages.add_to(app)
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
