"""GET /v1/models: deployments, and adapters by their repo/version."""

from typing import Any

from fastapi import APIRouter, Request
from sqlmodel import Session

from api.registry import versions
from api.requests.resolve import model_within, need_usable, resolve, usable_by
from api.security import ForInference
from api.state import StateDep
from loraplex.entities import Adapter, Deployment

router = APIRouter(tags=["openai"])


@router.get("/models")
def list_models(http: Request, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """Everything that `model` may name; below a deployment's path, with that deployment."""
    within = http.path_params.get("deployment")
    with Session(state.database) as session:
        if within is None:
            deployments = usable_by(session, tenant)
        else:
            deployments = [need_usable(session, tenant, within)]
        served = {d.base_model for d in deployments}
        adapters = versions.of_tenant(session, tenant, archived=False)
        adapters = [a for a in adapters if a.base_model in served]
        models = [_model(d.name, d) for d in deployments] + [_model(a.ref, a) for a in adapters]
    return {"object": "list", "data": models}


@router.get("/models/{model:path}")
def retrieve(model: str, http: Request, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """One model; ids may contain `/` and `:`."""
    within = http.path_params.get("deployment")
    with Session(state.database) as session:
        target = resolve(session, tenant, model_within(within, model))
        return _model(model, target.adapter or target.deployment)


def _model(name: str, row: Deployment | Adapter) -> dict[str, Any]:
    created = int(row.created_at.timestamp())
    return {"id": name, "object": "model", "created": created, "owned_by": row.tenant_id}
