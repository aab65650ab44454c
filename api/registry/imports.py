"""Adapters that are fetched from a hub, S3 or a folder: asked for here, done by a task worker."""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine, func, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from api.errors import ApiError, bad_request
from api.keyring import Caller
from api.registry import repos
from api.state import State
from loraplex.compare_and_set import changed
from loraplex.entities import UNFINISHED, AdapterImport, WorkState, utc_now
from loraplex.registry import find_adapter
from loraplex.scopes import Scope
from loraplex.store.models import is_hub_name, is_path
from loraplex.store.sources import (
    Allowed,
    Source,
    SourceKind,
    SourceRefused,
    check_allowed,
    parse,
)

log = logging.getLogger(__name__)

_TOKEN = re.compile("[!-~]*")
_MOST_AT_ONCE = 50  # of a tenant
_LOOK_EACH_S = 0.2
_WAIT_S = 45.0  # LoRAX' client waits for a minute
_TRIED = 10
_FAILURE_HOLDS = timedelta(seconds=30)


async def begin(
    state: State, tenant: str, source: Source, repo: str, base_model: str, token: str
) -> AdapterImport:
    """Raises ApiError."""
    repos.check_name(repo)
    if not _TOKEN.fullmatch(token):
        raise bad_request("token: printable ASCII, without spaces.", "token")
    row = AdapterImport(tenant_id=tenant, source=str(source), repo=repo, base_model=base_model)
    row.token = state.secrets.lock(token) if token else ""
    return await _asked(state, row)


async def begin_model(state: State, tenant: str, source: Source, name: str) -> AdapterImport:
    """Of a base model. Raises ApiError."""
    if is_path(name) or not is_hub_name(name):
        raise bad_request(f"{name[:80]!r} is no name of a model, such as org/model.", "name")
    if state.models.find(name):
        raise ApiError(409, "already_exists", f"Base model {name!r} is here already.", param="name")
    if source.kind is SourceKind.HUB:
        message = "Base models of the hub are fetched when a deployment names them."
        raise bad_request(message, "source")
    row = AdapterImport(tenant_id=tenant, source=str(source), repo=name, model=name)
    return await _asked(state, row)


async def _asked(state: State, row: AdapterImport) -> AdapterImport:
    stored = await run_in_threadpool(_store, state, row)
    await state.broker.ask_import(stored.id)
    return stored


def source_of(state: State, caller: Caller, text: str) -> Source:
    """Raises ApiError 400 for one that isn't, or isn't allowed."""
    settings = state.settings
    local = settings.allow_local_models and caller.operator
    try:
        source = parse(text)
        check_allowed(source, Allowed(caller.tenant, local, settings.home, settings.s3_sources))
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
    done = changed(session, wanted.values(state=WorkState.CANCELLED.value, token=""))
    session.commit()
    session.refresh(row)
    if not done:
        raise ApiError(409, "conflict", f"Import {row.id!r} has ended: it {row.state}.")
    return row


async def imported(
    state: State, caller: Caller, sources: Sequence[Source], token: str
) -> list[str]:
    """The versions that came, or come now, from these: REPO/VERSION each. Raises ApiError."""
    rows = [await _wanted(state, caller, source, token) for source in sources]
    with suppress(TimeoutError):
        async with asyncio.timeout(_WAIT_S):
            rows = [await state.imports.end_of(row) for row in rows]
    for source, row in zip(sources, rows, strict=True):
        if row.state in UNFINISHED:
            message = f"{source} is being fetched. Send the request again."
            raise ApiError(503, "adapter_importing", message, retry_after_s=5)
        if row.state != WorkState.SUCCEEDED:
            message = f"{source}: {row.error or row.state}"
            raise bad_request(message, "adapter_id", "adapter_import_failed")
    return [row.adapter for row in rows]


async def _wanted(state: State, caller: Caller, source: Source, token: str) -> AdapterImport:
    row = await run_in_threadpool(_latest, state, caller.tenant, source)
    if row is not None:
        return row
    if not {Scope.ADMIN, Scope.ADAPTERS} & caller.scopes:
        message = f"{source} was not imported, and this API key lacks the scope 'adapters'."
        raise ApiError(403, "missing_scope", message)
    return await begin(state, caller.tenant, source, source.repo, "", token)


class ImportEnds:
    """Who waits for imports' ends, in this process: one look at the database for all of them."""

    def __init__(self, database: Engine) -> None:
        self._database = database
        self._waiting: dict[str, asyncio.Future[AdapterImport]] = {}
        self._until: dict[str, float] = {}  # nobody waits for longer
        self._looking: asyncio.Task[None] | None = None

    async def end_of(self, row: AdapterImport) -> AdapterImport:
        if row.state not in UNFINISHED:
            return row
        end = self._waiting.get(row.id)
        if end is None:
            end = self._waiting[row.id] = asyncio.get_running_loop().create_future()
        self._until[row.id] = time.monotonic() + _WAIT_S
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(end)

    async def _look(self) -> None:
        while self._waiting:
            await asyncio.sleep(_LOOK_EACH_S)
            for given_up in [i for i, until in self._until.items() if time.monotonic() > until]:
                self._forget(given_up)
            try:
                ended = await run_in_threadpool(self._ended, list(self._waiting))
            except SQLAlchemyError as away:
                log.warning("whether imports have ended can't be told: %s", away)
                continue
            for row in ended:
                self._forget(row.id).set_result(row)

    def _forget(self, import_id: str) -> "asyncio.Future[AdapterImport]":
        del self._until[import_id]
        return self._waiting.pop(import_id)

    def _ended(self, ids: list[str]) -> list[AdapterImport]:
        with Session(self._database, expire_on_commit=False) as session:
            wanted = select(AdapterImport).where(
                col(AdapterImport.id).in_(ids), col(AdapterImport.state).not_in(UNFINISHED)
            )
            return list(session.exec(wanted))


def _store(state: State, row: AdapterImport) -> AdapterImport:
    with Session(state.database, expire_on_commit=False) as session:
        count = select(func.count()).where(
            col(AdapterImport.tenant_id) == row.tenant_id, col(AdapterImport.state).in_(UNFINISHED)
        )
        if session.exec(count).one() >= _MOST_AT_ONCE:
            message = f"At most {_MOST_AT_ONCE} imports at once. Wait, or cancel one."
            raise ApiError(429, "too_many", message, retry_after_s=5)
        session.add(row)
        try:
            session.commit()
        except IntegrityError:  # it is being imported
            session.rollback()
            there = select(AdapterImport).where(
                AdapterImport.tenant_id == row.tenant_id,
                AdapterImport.source == row.source,
                AdapterImport.repo == row.repo,
                col(AdapterImport.state).in_(UNFINISHED),
            )
            found = session.exec(there).first()
            if found is None:
                message = f"{row.source} has just ended. Try again."
                raise ApiError(409, "conflict", message) from None
            return found
        return row


def _latest(state: State, tenant: str, source: Source) -> AdapterImport | None:
    """The one that counts: the latest that brought a version that is there; without one, whatever
    is under way, or has just failed. None: it is to be imported, for the first time or again."""
    newest = col(AdapterImport.created_at).desc()
    with Session(state.database, expire_on_commit=False) as session:
        came = _of(tenant, source).where(AdapterImport.state == WorkState.SUCCEEDED)
        for row in session.exec(came.order_by(newest).limit(_TRIED)):
            if find_adapter(session, tenant, row.adapter):
                return row
        others = (*UNFINISHED, WorkState.FAILED.value)
        wanted = _of(tenant, source).where(col(AdapterImport.state).in_(others))
        last = session.exec(wanted.order_by(newest)).first()
        if last is None or last.state in UNFINISHED:
            return last
        return last if last.beat_at > utc_now() - _FAILURE_HOLDS else None


def _of(tenant: str, source: Source) -> SelectOfScalar[AdapterImport]:
    return select(AdapterImport).where(
        AdapterImport.tenant_id == tenant,
        AdapterImport.source == str(source),
        AdapterImport.model == "",
    )
