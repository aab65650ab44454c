"""/api/v1/deployments/{name}/comparison: its traffic under other scaling laws."""

import msgspec
from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session

from api.control.deployment_schemas import ComparisonOut
from api.errors import ApiError
from api.requests.resolve import need_deployment
from api.security import ForDeployments, ForLooking
from api.state import State, StateDep
from loraplex.comparison import Comparison
from loraplex.entities import Deployment

router = APIRouter(prefix="/deployments", tags=["deployments"])


@router.post("/{name}/comparison", status_code=202)
async def ask_comparison(name: str, tenant: ForDeployments, state: StateDep) -> dict[str, str]:
    """Run the deployment's recorded traffic under other scaling laws. Read it with GET."""
    deployment = await run_in_threadpool(_deployment, state, tenant, name)
    await state.broker.ask_comparison(deployment.id)
    await state.broker.wake_scaler(deployment.lane.name)
    return {"status": "running"}


@router.get("/{name}/comparison")
async def comparison(name: str, tenant: ForLooking, state: StateDep) -> ComparisonOut:
    """What each law would have cost, and how long clients would have waited."""
    deployment = await run_in_threadpool(_deployment, state, tenant, name)
    found = await state.broker.comparison(deployment.id)
    if found is None:
        message = "It is not done, or nobody has asked for it: POST to this path first."
        raise ApiError(404, "not_found", message)
    if found.error:
        raise ApiError(409, "too_little_traffic", found.error)
    return ComparisonOut.model_validate(_as_dict(found))


def _as_dict(found: Comparison) -> dict[str, object]:
    laws = [msgspec.structs.asdict(law) for law in found.laws]
    return msgspec.structs.asdict(found) | {"laws": laws}


def _deployment(state: State, tenant: str, name: str) -> Deployment:
    with Session(state.database, expire_on_commit=False) as session:
        return need_deployment(session, tenant, name)
