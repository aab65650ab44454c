"""Adapters that are fetched from a hub, S3 or a folder: asked for here, done by a task worker."""

import asyncio
import time
from datetime import timedelta

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, update
from sqlmodel import Session, col, select

from api.errors import ApiError, bad_request
from api.keyring import Caller
from api.registry import repos
from api.requests.resolve import find_adapter
from api.state import State
from loraplex.compare_and_set import changed
from loraplex.entities import AdapterImport, ImportState, utc_now
from loraplex.scopes import Scope
from loraplex.store.sources import Source, SourceRefused, check_allowed, parse

UNFINISHED = (ImportState.QUEUED.value, ImportState.RUNNING.value)
_MOST_AT_ONCE = 50  # of a tenant
_LOOK_EACH_S = 0.2
_WAIT_S = 60.0
_FAILURE_HOLDS = timedelta(seconds=30)


async def begin(
    state: State, tenant: str, source: Source, repo: str, base_model: str, token: str
) -> AdapterImport:
    """Raises ApiError."""
    row = await run_in_threadpool(_store, state, tenant, source, repo, base_model, token)
    await state.broker.ask_import(row.id)
    return row


def source_of(state: State, tenant: str, text: str) -> Source:
    """Raises ApiError 400 for one that isn't, or isn't allowed."""
    settings = state.settings
    try:
        source = parse(text)
        check_allowed(
            *(source, tenant), local=settings.allow_local_models, s3_prefixes=settings.s3_sources
        )
    except SourceRefused as refused:
        raise bad_request(str(refused), "source") from refused
    return source


def need(session: Session, tenant: str, import_id: str) -> AdapterImport:
    """Raises ApiError 404."""
    row = session.get(AdapterImport, import_id)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no import {import_id[:80]!r}.")
    return row


def of_tenant(session: Session, tenant: str, most: int) -> list[AdapterImport]:
    """The newest first."""
    wanted = select(AdapterImport).where(AdapterImport.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(AdapterImport.created_at).desc()).limit(most)))


def cancel(session: Session, row: AdapterImport) -> AdapterImport:
    """Raises ApiError 409 for one that has ended."""
    wanted = update(AdapterImport).where(
        col(AdapterImport.id) == row.id, col(AdapterImport.state).in_(UNFINISHED)
    )
    done = changed(session, wanted.values(state=ImportState.CANCELLED.value, token=""))
    session.commit()
    session.refresh(row)
    if not done:
        raise ApiError(409, "conflict", f"Import {row.id!r} has ended: it {row.state}.")
    return row


async def imported(state: State, caller: Caller, source: Source, token: str) -> str:
    """The version that came, or comes now, from a source: REPO/VERSION. Raises ApiError."""
    deadline = time.monotonic() + _WAIT_S
    row = await run_in_threadpool(_latest, state, caller.tenant, source)
    if row is None:
        if not {Scope.ADMIN, Scope.ADAPTERS} & caller.scopes:
            message = f"{source} was not imported, and this API key lacks the scope 'adapters'."
            raise ApiError(403, "missing_scope", message)
        row = await begin(state, caller.tenant, source, source.repo, "", token)
    while row.state in UNFINISHED and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_EACH_S)
        row = await run_in_threadpool(_read, state, row.id)
    if row.state == ImportState.SUCCEEDED:
        return row.adapter
    if row.state in UNFINISHED:
        far = "" if row.progress is None else f" ({row.progress:.0%})"
        message = f"{source} is being fetched{far}. Send the request again."
        raise ApiError(503, "adapter_importing", message, retry_after_s=5)
    raise bad_request(f"{source}: {row.error or row.state}", "adapter_id", "adapter_import_failed")


def _store(
    state: State, tenant: str, source: Source, repo: str, base_model: str, token: str
) -> AdapterImport:
    repos.check_name(repo)
    with Session(state.database, expire_on_commit=False) as session:
        count = select(func.count()).where(
            col(AdapterImport.tenant_id) == tenant, col(AdapterImport.state).in_(UNFINISHED)
        )
        if session.exec(count).one() >= _MOST_AT_ONCE:
            message = f"At most {_MOST_AT_ONCE} imports at once. Wait, or cancel one."
            raise ApiError(429, "too_many", message, retry_after_s=5)
        row = AdapterImport(tenant_id=tenant, source=str(source), repo=repo, base_model=base_model)
        row.token = state.secrets.lock(token) if token else ""
        session.add(row)
        session.commit()
        return row


def _latest(state: State, tenant: str, source: Source) -> AdapterImport | None:
    """The one that counts. None: it is to be imported, for the first time or again."""
    with Session(state.database, expire_on_commit=False) as session:
        wanted = select(AdapterImport).where(
            AdapterImport.tenant_id == tenant,
            AdapterImport.source == str(source),
            AdapterImport.state != ImportState.CANCELLED,
        )
        row = session.exec(wanted.order_by(col(AdapterImport.created_at).desc())).first()
        if row is None:
            return None
        if row.state == ImportState.SUCCEEDED:
            return row if find_adapter(session, tenant, row.adapter) else None
        failed_long_ago = row.beat_at < utc_now() - _FAILURE_HOLDS
        return None if row.state == ImportState.FAILED and failed_long_ago else row


def _read(state: State, import_id: str) -> AdapterImport:
    with Session(state.database, expire_on_commit=False) as session:
        return session.get_one(AdapterImport, import_id)
