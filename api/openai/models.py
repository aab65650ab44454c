"""GET /v1/models: deployments, and adapters by their repo/version."""

from typing import Any

from fastapi import APIRouter
from sqlmodel import Session, col, select

from api.requests.resolve import resolve, usable_by
from api.security import ForInference
from api.state import StateDep
from loraplex.entities import Adapter, Deployment

router = APIRouter(tags=["openai"])


@router.get("/models")
def list_models(tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """Everything that `model` may name."""
    with Session(state.database) as session:
        deployments = usable_by(session, tenant)
        served = {d.base_model for d in deployments}
        adapters = session.exec(
            select(Adapter)
            .where(Adapter.tenant_id == tenant, col(Adapter.base_model).in_(served))
            .order_by(col(Adapter.repo), col(Adapter.version))
        ).all()
        models = [_model(d.name, d) for d in deployments] + [_model(a.ref, a) for a in adapters]
    return {"object": "list", "data": models}


@router.get("/models/{model:path}")
def retrieve(model: str, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """One model; ids may contain `/` and `:`."""
    with Session(state.database) as session:
        target = resolve(session, tenant, model)
        return _model(model, target.adapter or target.deployment)


def _model(name: str, row: Deployment | Adapter) -> dict[str, Any]:
    created = int(row.created_at.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": row.tenant_id}
