"""/api/v1/adapters: register LoRA weights as the next version of a repo, list them."""

import re
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from api.control.deployments import check_base_model
from api.errors import ApiError, bad_request
from api.security import ForAdapters, ForLooking
from api.state import State, StateDep
from loraplex.entities import Adapter
from loraplex.store.adapters import AdapterInvalid, AdapterStore

router = APIRouter(prefix="/adapters", tags=["adapters"])

_REPO = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class AdapterOut(BaseModel):
    ref: str
    repo: str
    version: int
    base_model: str
    digest: str
    rank: int
    targets: list[str]
    size_bytes: int
    created_at: datetime


@router.post("", status_code=201)
async def register(
    repo: Annotated[str, Form()],
    adapter_config: UploadFile,
    adapter_model: UploadFile,
    tenant: ForAdapters,
    state: StateDep,
    base_model: Annotated[str, Form()] = "",
) -> AdapterOut:
    """Store PEFT's `adapter_config.json` and `adapter_model.safetensors` as `repo/<next version>`.

    The same files again give the version that they already have. `base_model` overrides the name
    in the config (a local path, say).
    """
    if not _REPO.fullmatch(repo):
        raise bad_request(
            "repo: 1 to 63 letters, digits, '.', '_' and '-', not at the ends.", "repo"
        )
    config, weights = await adapter_config.read(), await adapter_model.read()
    return await run_in_threadpool(_register, state, tenant, repo, base_model, config, weights)


@router.get("")
def list_adapters(tenant: ForLooking, state: StateDep) -> dict[str, list[AdapterOut]]:
    with Session(state.database) as session:
        rows = session.exec(
            select(Adapter)
            .where(Adapter.tenant_id == tenant)
            .order_by(col(Adapter.repo), col(Adapter.version))
        ).all()
        return {"data": [_out(row) for row in rows]}


def _register(
    state: State, tenant: str, repo: str, base_model: str, config: bytes, weights: bytes
) -> AdapterOut:
    try:
        named = base_model or AdapterStore.base_model_of(config)
        if not named:
            raise bad_request("Name the base model: the config doesn't.", "base_model")
        check_base_model(state, named)
        facts = state.adapters.put(config, weights, state.models.find(named))
    except AdapterInvalid as refused:
        raise bad_request(f"Adapter refused: {refused}", "adapter", "adapter_refused") from refused
    for _ in range(5):  # another registration may take the same version number
        with Session(state.database, expire_on_commit=False) as session:
            mine = (Adapter.tenant_id == tenant, Adapter.repo == repo)
            same = session.exec(
                select(Adapter).where(
                    *mine, Adapter.digest == facts.digest, Adapter.base_model == named
                )
            ).first()
            if same is not None:
                return _out(same)
            newest = session.exec(select(func.max(Adapter.version)).where(*mine)).one()
            row = Adapter(
                tenant_id=tenant,
                repo=repo,
                version=(newest or 0) + 1,
                base_model=named,
                digest=facts.digest,
                rank=facts.rank,
                targets=facts.targets,
                size_bytes=facts.size_bytes,
            )
            session.add(row)
            try:
                session.commit()
                return _out(row)
            except IntegrityError:
                session.rollback()
    raise ApiError(409, "conflict", f"Repo {repo!r} is being written to; try again.")


def _out(row: Adapter) -> AdapterOut:
    return AdapterOut(ref=row.ref, **row.model_dump(exclude={"id", "tenant_id"}))
