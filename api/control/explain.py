"""/api/v1/deployments/{name}/explain: why this many replicas, why this status."""

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session, col, select

from api.control.deployment_schemas import EventOut, ExplanationOut
from api.requests.resolve import need_deployment
from api.security import ForLooking
from api.state import State, StateDep
from loraplex.entities import Deployment, DeploymentEvent
from loraplex.status import ADMITTING, Status

router = APIRouter(prefix="/deployments", tags=["deployments"])

_DECISIONS = 10


@router.get("/{name}/explain")
async def explain(name: str, tenant: ForLooking, state: StateDep) -> ExplanationOut:
    """The latest decision with its inputs, what would lead to another, and the decisions before."""
    deployment, decisions = await run_in_threadpool(_rows, state, tenant, name)
    scales = deployment.status in ADMITTING and deployment.status != Status.PENDING
    known, _ = await state.broker.explanation(deployment.id) if scales else (None, 0.0)
    return ExplanationOut(
        name=deployment.name,
        status=deployment.status,
        reason=deployment.reason,
        decided_at=datetime.fromtimestamp(known.at, UTC) if known else None,
        wanted=known.wanted if known else None,
        allowed=known.allowed if known else None,
        has=known.has if known else None,
        why=known.reason if known else _undecided(deployment),
        inputs=known.inputs if known else {},
        would_change=known.would_change if known else [],
        last_decisions=decisions,
    )


def _undecided(deployment: Deployment) -> str:
    if deployment.status == Status.PENDING:
        done = f" ({deployment.progress:.0%})" if deployment.progress is not None else ""
        return f"It is pending{done}: nothing can start before its base model is here."
    if deployment.status in ADMITTING:
        return "The scaler has not looked at it yet."
    return f"It is {deployment.status}: nothing is scaled until it is started."


def _rows(state: State, tenant: str, name: str) -> tuple[Deployment, list[EventOut]]:
    with Session(state.database, expire_on_commit=False) as session:
        deployment = need_deployment(session, tenant, name)
        rows = session.exec(
            select(DeploymentEvent)
            .where(DeploymentEvent.deployment_id == deployment.id, DeploymentEvent.kind == "scaled")
            .order_by(col(DeploymentEvent.id).desc())
            .limit(_DECISIONS)
        ).all()
        decisions = [EventOut.model_validate(r, from_attributes=True) for r in reversed(rows)]
    return deployment, decisions
