"""Deployments as Predibase's SDK makes, changes, lists and watches them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from sqlmodel import Session, col, select

from api.control import deployments as control
from api.control.deployment_view import show_all
from api.errors import ApiError
from api.predibase.schemas import Config, Create, Update, shown
from api.requests.models import BrokenModel
from api.requests.resolve import need_usable, usable_by
from api.security import ForDeployments, ForLooking
from api.state import State, StateDep
from loraplex.entities import Deployment, DeploymentEvent
from loraplex.status import Event, Status

router = APIRouter(tags=["predibase"])

_TAKEN_BACK = (Event.ARTEFACTS_FAILED, Event.ROLLOUT_FAILED)
_WELL = (Event.ARTEFACTS_READY, Event.ROLLED_OUT)
_FAILED = (Status.ERRORED, Status.DELETED, Status.STOPPED)


@router.get("/v2/deployments/recommended-config")
def recommended_config(
    tenant: ForLooking,
    baseModel: Annotated[str, Query(min_length=1, max_length=512)],
    accelerator: str | None = None,
    quantization: str | None = None,
) -> dict[str, Any]:
    """The defaults: replicas go to zero when nobody asks."""
    config = Config(baseModel=baseModel, minReplicas=0, maxReplicas=1, cooldownTime=3600)
    return config.model_dump(by_alias=True, exclude_none=True)


@router.post("/v2/deployments", status_code=201)
async def create(
    body: Create, http: Request, tenant: ForDeployments, state: StateDep
) -> dict[str, Any]:
    await control.create(body.ours(), http, tenant, state)
    return await get(body.name, tenant, state)


@router.get("/v2/deployments")
async def list_all(
    tenant: ForLooking,
    state: StateDep,
    type: Literal["shared", "private", "serverless", "dedicated"] | None = None,
) -> dict[str, Any]:
    """Serverless is the older name of shared, dedicated that of private."""
    rows = await run_in_threadpool(_rows, state, tenant)
    if type is not None:
        shared = type in ("shared", "serverless")
        rows = [row for row in rows if row.shared == shared]
    return {"data": await _shown(state, rows, tenant)}


@router.get("/v2/deployments/{name}")
async def get(name: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    row = await run_in_threadpool(_row, state, tenant, name)
    return {"data": (await _shown(state, [row], tenant))[0]}


@router.put("/v2/deployments/{name}")
async def update(
    name: str, body: Update, http: Request, tenant: ForDeployments, state: StateDep
) -> dict[str, Any]:
    """What isn't given, or null, stays."""
    now = await control.get(name, tenant, state)
    engine = now.change.engine if now.change else now.engine
    await control.change(name, body.ours(engine), http, tenant, state)
    return await get(name, tenant, state)


@router.delete("/v2/deployments/{name}")
async def delete(name: str, tenant: ForDeployments, state: StateDep) -> dict[str, Any]:
    await control.delete(name, tenant, state)
    return {"data": {"name": name}}


@router.get("/v2/deployments/{name}/request-logs")
async def request_logs(name: str, tenant: ForLooking, state: StateDep) -> JSONResponse:
    await control.get(name, tenant, state)
    message = "Requests are not logged here: prompts stay with clients."
    return JSONResponse({"error": {"message": message}}, 400)  # as the SDK reads it here


@router.get("/llms/{name}/events")
@router.get("/v1/llms/{name}/events", include_in_schema=False)
def events(name: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    """What happened since it was made or changed last; of another tenant's (it is shared) only what
    it is now. `Ready` says that it takes requests, though it may have no replica yet: that is what
    the SDK waits for."""
    with Session(state.database) as session:
        row = need_usable(session, tenant, name)
        rows = session.exec(
            select(DeploymentEvent)
            .where(DeploymentEvent.deployment_id == row.id, row.tenant_id == tenant)
            .order_by(col(DeploymentEvent.id))
        ).all()
        return {
            "name": row.name,
            "ComputeEvents": compute_events(row, rows),
            "resourceActiveTime": 0,
            "deploymentStatus": row.status,
        }


def compute_events(row: Deployment, rows: Sequence[DeploymentEvent]) -> list[dict[str, Any]]:
    """Those since the latest change, the last one by what the deployment is now. Pure."""
    changes = [i for i, each in enumerate(rows) if each.kind in ("created", "changed")]
    since = rows[changes[-1] :] if changes else rows
    found = [
        {"eventType": each.to_status.capitalize(), "timestamp": _time(each.at)}
        for each in since
        if each.from_status != each.to_status
        and each.to_status not in (Status.READY, Status.STANDBY, Status.ERRORED)
    ]
    settled = row.target == row.revision and row.status in (Status.READY, Status.STANDBY)
    verdicts = [each.kind for each in since if each.kind in (*_WELL, *_TAKEN_BACK)]
    taken_back = bool(verdicts) and verdicts[-1] in _TAKEN_BACK
    if settled and not taken_back:
        found.append({"eventType": "Ready", "timestamp": _time(row.changed_at)})
    elif settled or row.status in _FAILED:
        found.append({"eventType": "Failed", "timestamp": _time(row.changed_at)})
    return found


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows(state: State, tenant: str) -> list[Deployment]:
    with Session(state.database, expire_on_commit=False) as session:
        return usable_by(session, tenant)


def _row(state: State, tenant: str, name: str) -> Deployment:
    with Session(state.database, expire_on_commit=False) as session:
        return need_usable(session, tenant, name)


async def _shown(state: State, rows: list[Deployment], tenant: str) -> list[dict[str, Any]]:
    found = []
    for row, out in zip(rows, await show_all(state, rows, tenant), strict=True):
        ready = sum(replica.phase == "ready" for replica in out.replicas)
        context = await run_in_threadpool(_context, state, row)
        found.append(shown(row, out.engine, ready, context))
    return found


def _context(state: State, row: Deployment) -> int:
    """Tokens; 0 while its base model isn't here, or can't be read."""
    try:
        return state.resolver.served_for(row).context_length
    except (ApiError, BrokenModel):
        return 0
