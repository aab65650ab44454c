"""/api/v1/deployments: create, list, change, stop, start, delete; their events and replicas."""

import re
from collections.abc import Mapping
from typing import Annotated, cast

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from api.control.deployment_schemas import (
    PRELOAD,
    DeploymentCreate,
    DeploymentOut,
    DeploymentPatch,
    EngineSettings,
    EventOut,
    ReplicaRowOut,
)
from api.control.deployment_view import show, show_all
from api.errors import ApiError, bad_request
from api.requests.quota import check_budget
from api.requests.resolve import need_deployment, need_usable, usable_by
from api.security import ForDeployments, ForLooking, caller_of
from api.state import State, StateDep
from loraplex import lifecycle
from loraplex.compare_and_set import changed
from loraplex.entities import Deployment, DeploymentEvent, Replica, Revision
from loraplex.registry import find_adapter
from loraplex.status import Event, Status
from loraplex.store.models import ModelUnavailable, is_path

router = APIRouter(prefix="/deployments", tags=["deployments"])

_MOST_PRELOADED = 2 * 2**30  # bytes
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


@router.post("", status_code=201)
async def create(
    body: DeploymentCreate, http: Request, tenant: ForDeployments, state: StateDep
) -> DeploymentOut:
    """A new deployment, Pending until its base model is checked."""
    _check_shared(http, body.shared)
    check_path(http, body.base_model)
    check_budget(caller_of(http))
    deployment = await run_in_threadpool(_create, state, tenant, body)
    state.resolver.forget()
    await state.broker.set_gate(deployment.lane, None)
    return await show(state, deployment, tenant)


@router.get("")
async def list_deployments(tenant: ForLooking, state: StateDep) -> dict[str, list[DeploymentOut]]:
    """The tenant's own, and those that are shared."""

    def rows() -> list[Deployment]:
        with Session(state.database, expire_on_commit=False) as session:
            return usable_by(session, tenant)

    return {"data": await show_all(state, await run_in_threadpool(rows), tenant)}


@router.get("/{name}")
async def get(name: str, tenant: ForLooking, state: StateDep) -> DeploymentOut:
    def row() -> Deployment:
        with Session(state.database, expire_on_commit=False) as session:
            return need_usable(session, tenant, name)

    return await show(state, await run_in_threadpool(row), tenant)


@router.get("/{name}/events")
def events(
    name: str,
    tenant: ForLooking,
    state: StateDep,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Those after this id.")] = None,
) -> dict[str, list[EventOut]]:
    """Status changes and scaling decisions, oldest first: the latest 200, or the next 200 after an
    id."""
    number = col(DeploymentEvent.id)
    with Session(state.database) as session:
        deployment = need_deployment(session, tenant, name)
        wanted = select(DeploymentEvent).where(DeploymentEvent.deployment_id == deployment.id)
        if after is None:
            rows = session.exec(wanted.order_by(number.desc()).limit(200)).all()[::-1]
        else:
            rows = session.exec(wanted.where(number > after).order_by(number).limit(200)).all()
        data = [EventOut.model_validate(r, from_attributes=True) for r in rows]
    return {"data": data}


@router.get("/{name}/replicas")
def replicas(name: str, tenant: ForLooking, state: StateDep) -> dict[str, list[ReplicaRowOut]]:
    """The latest 20 replicas, oldest first, also those that are gone and why."""
    with Session(state.database) as session:
        deployment = need_deployment(session, tenant, name)
        rows = session.exec(
            select(Replica)
            .where(Replica.deployment_id == deployment.id)
            .order_by(col(Replica.created_at).desc())
            .limit(20)
        ).all()
        data = [ReplicaRowOut.model_validate(r, from_attributes=True) for r in reversed(rows)]
    return {"data": data}


@router.patch("/{name}")
async def change(
    name: str, body: DeploymentPatch, http: Request, tenant: ForDeployments, state: StateDep
) -> DeploymentOut:
    """Change knobs at once; another base model or other engine settings are rolled out: new
    replicas come before the old ones go, and no request is disturbed."""
    _check_shared(http, body.shared)
    check_path(http, body.base_model or "")

    def write() -> Deployment:
        with Session(state.database, expire_on_commit=False) as session:
            return _change(state, session, need_deployment(session, tenant, name), body, tenant)

    deployment = await run_in_threadpool(write)
    state.resolver.forget()
    await state.broker.wake_scaler(deployment.lane.name)
    return await show(state, deployment, tenant)


def _change(
    state: State, session: Session, deployment: Deployment, body: DeploymentPatch, tenant: str
) -> Deployment:
    if body.base_model is not None:
        check_base_model(state, body.base_model)
    revision = _next_revision(session, deployment, body, tenant)
    given = body.model_dump(exclude_none=True, exclude={"base_model", "engine"})
    if body.limits is not None:
        given["limits"] = body.limits.model_dump(exclude_none=True)
    _write_change(session, deployment, given, revision)
    actor = f"user:{tenant}"
    asked = body.model_dump(exclude_none=True)
    changes = ", ".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in asked.items())
    lifecycle.note(session, deployment, "changed", actor=actor, reason=changes or "nothing")
    mends = given and deployment.status == Status.ERRORED
    if (revision is not None or mends) and deployment.status != Status.STOPPED:
        what = f"revision {deployment.target}: {changes}"
        lifecycle.demand(session, deployment, Event.CHANGE_ROLLOUT, actor=actor, reason=what)
    return deployment


def _write_change(
    session: Session,
    deployment: Deployment,
    given: Mapping[str, object],
    revision: Revision | None,
) -> None:
    """All of it, or 409 where another change came at the same moment: bounds that were right for
    both alone may be wrong together."""
    bounds = {"min_replicas": deployment.min_replicas, "max_replicas": deployment.max_replicas}
    wanted = bounds | {key: given[key] for key in bounds if key in given}
    _check_bounds(cast(int, wanted["min_replicas"]), cast(int, wanted["max_replicas"]))
    values = dict(given)
    if revision is not None:
        session.add(revision)
        values["target"] = revision.number
    if values:  # whatever was wrong may be mended
        values |= {"failed_starts": 0, "retry_at": None}
        seen = bounds | {"target": deployment.target}
        unchanged = [getattr(Deployment, key) == value for key, value in seen.items()]
        change = update(Deployment).where(col(Deployment.id) == deployment.id, *unchanged)
        try:
            written = changed(session, change.values(**values))
        except IntegrityError:  # this revision is there
            written = 0
        if not written:
            session.rollback()
            message = f"Deployment {deployment.name!r} was changed at this moment. Try again."
            raise ApiError(409, "conflict", message)
    session.commit()
    session.refresh(deployment)


def _next_revision(
    session: Session, deployment: Deployment, body: DeploymentPatch, tenant: str
) -> Revision | None:
    """None: nothing changes that replicas are made of."""
    latest = session.exec(
        select(Revision)
        .where(Revision.deployment_id == deployment.id)
        .order_by(col(Revision.number).desc())
    ).first()
    target = session.get_one(Revision, (deployment.id, deployment.target))
    base_model = body.base_model or target.base_model
    engine = dict(target.engine)
    if base_model != target.base_model:  # adapters of the former one
        engine.pop(PRELOAD, None)
    if body.engine is not None:
        engine = _environment(session, tenant, base_model, body.engine)
    if (base_model, engine) == (target.base_model, target.engine):
        return None
    number = (latest.number if latest else 0) + 1
    return Revision(
        deployment_id=deployment.id, number=number, base_model=base_model, engine=engine
    )


@router.post("/{name}/stop")
async def stop(name: str, tenant: ForDeployments, state: StateDep) -> DeploymentOut:
    """No more requests; waiting ones are answered with an error, running ones finish."""
    return await _move(state, tenant, name, Event.STOP, "stopped by its owner")


@router.post("/{name}/start")
async def start(name: str, http: Request, tenant: ForDeployments, state: StateDep) -> DeploymentOut:
    """From Stopped back to Standby; from Errored another try."""
    check_budget(caller_of(http))
    return await _move(state, tenant, name, Event.START, "started by its owner")


@router.delete("/{name}")
async def delete(name: str, tenant: ForDeployments, state: StateDep) -> DeploymentOut:
    """Gone at once for its users (the name is free); what runs finishes first."""
    return await _move(state, tenant, name, Event.DELETE, "deleted by its owner")


async def _move(state: State, tenant: str, name: str, event: Event, why: str) -> DeploymentOut:
    """Where the table has no such move it is so already: stop what is stopped, start what runs."""

    def write() -> Deployment:
        with Session(state.database, expire_on_commit=False) as session:
            deployment = need_deployment(session, tenant, name)
            also = {"failed_starts": 0, "retry_at": None} if event is Event.START else None
            actor = f"user:{tenant}"
            lifecycle.demand(session, deployment, event, actor=actor, reason=why, also=also)
            return deployment

    deployment = await run_in_threadpool(write)
    shut = f"Deployment {name!r} is {deployment.status}." if event is not Event.START else None
    state.resolver.forget()
    await state.broker.set_gate(deployment.lane, shut)
    return await show(state, deployment, tenant)


def _create(state: State, tenant: str, body: DeploymentCreate) -> Deployment:
    if not _NAME.fullmatch(body.name):
        raise bad_request(
            "name: 1 to 63 lower-case letters, digits, '-' and '.', not at the ends.", "name"
        )
    check_base_model(state, body.base_model)
    _check_bounds(body.min_replicas, body.max_replicas)
    limits = body.limits.model_dump(exclude_none=True)
    knobs = body.model_dump(exclude={"engine", "limits"})
    deployment = Deployment(tenant_id=tenant, limits=limits, **knobs)
    with Session(state.database, expire_on_commit=False) as session:
        first = Revision(
            deployment_id=deployment.id,
            number=1,
            base_model=body.base_model,
            engine=_environment(session, tenant, body.base_model, body.engine),
        )
        session.add(deployment)
        try:
            session.flush()
        except IntegrityError as exists:
            raise ApiError(
                409, "already_exists", f"Deployment {body.name!r} exists already.", param="name"
            ) from exists
        session.add(first)
        lifecycle.note(session, deployment, "created", actor=f"user:{tenant}", reason="")
    return deployment


def _environment(
    session: Session, tenant: str, base_model: str, engine: EngineSettings
) -> dict[str, str]:
    """Raises ApiError 400 for an adapter that can't be preloaded."""
    digests, size = {}, 0
    for ref in engine.preload or ():
        adapter = find_adapter(session, tenant, ref)
        if adapter is None:
            raise bad_request(f"engine.preload: there is no adapter {ref!r}.", "engine.preload")
        if adapter.base_model != base_model:
            message = f"engine.preload: {ref!r} is for {adapter.base_model}, not {base_model}."
            raise bad_request(message, "engine.preload")
        digests[ref] = adapter.digest
        size += adapter.size_bytes
    if size > _MOST_PRELOADED:
        message = f"engine.preload: {size} bytes; at most {_MOST_PRELOADED}: replicas keep them."
        raise bad_request(message, "engine.preload")
    return engine.environment(digests)


def check_base_model(state: State, name: str) -> None:
    """Raises ApiError 400 for what can't be a base model's name."""
    try:
        state.models.check_name(name)
    except ModelUnavailable as refused:
        raise bad_request(str(refused), "base_model") from refused


def _check_shared(http: Request, shared: bool | None) -> None:
    if shared and not caller_of(http).operator:
        message = "Only the tenant that runs the platform shares a deployment."
        raise ApiError(403, "operators_only", message, param="shared")


def check_path(http: Request, base_model: str) -> None:
    """Raises ApiError 403."""
    if is_path(base_model) and not caller_of(http).operator:
        message = "Only the tenant that runs the platform names base models by their paths."
        raise ApiError(403, "operators_only", message, param="base_model")


def _check_bounds(low: int, high: int) -> None:
    if low > high:
        message = f"min_replicas ({low}) is over max_replicas ({high}). Give both."
        raise bad_request(message, "min_replicas")
