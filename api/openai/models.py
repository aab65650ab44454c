"""GET /v1/models: deployments, and adapters by their repo/version."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from sqlmodel import Session

from api.registry import aliases, versions
from api.requests.resolve import model_within, need_usable, resolve, usable_by
from api.security import ForInference
from api.state import StateDep

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
        every = versions.of_tenant(session, tenant, archived=False)
        adapters = [adapter for adapter in every if adapter.base_model in served]
        named = [a for a in aliases.of_tenant(session, tenant) if a.base_model in served]
        models = [_model(d.name, d.tenant_id, d.created_at) for d in deployments]
        models += [_model(a.ref, a.tenant_id, a.created_at) for a in adapters]
        models += [_model(a.ref, a.tenant_id, a.changed_at) for a in named]
    return {"object": "list", "data": models}


@router.get("/models/{model:path}")
def retrieve(model: str, http: Request, tenant: ForInference, state: StateDep) -> dict[str, Any]:
    """One model; ids may contain `/` and `:`."""
    within = http.path_params.get("deployment")
    with Session(state.database) as session:
        target = resolve(session, tenant, model_within(within, model))
        row = target.adapter or target.deployment
        return _model(model, row.tenant_id, row.created_at)


def _model(name: str, owner: str, created: datetime) -> dict[str, Any]:
    at = int(created.timestamp())
    return {"id": name, "object": "model", "created": at, "owned_by": owner}
