"""/api/v1/tenants and /api/v1/plans: what tenants may ask for and spend. For operators."""

import re
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from api.control.limit_schemas import LimitsBody
from api.errors import ApiError, bad_request
from api.security import Operator
from api.state import StateDep
from loraplex.budget_state import BudgetState
from loraplex.entities import Plan, Tenant

router = APIRouter(tags=["tenants"])

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class TenantCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(description="1 to 63 lower-case letters, digits and '-'.")


class TenantPatch(BaseModel):
    """What is left out stays; null takes it away."""

    model_config = ConfigDict(extra="forbid")
    plan: str | None = Field(None, max_length=63)
    budget: float | None = Field(
        None, ge=0, le=1e12, description="Cost of a calendar month (UTC) at which it is stopped."
    )
    budget_warn_at: float = Field(0.8, gt=0, le=1, description="A part of the budget.")


class TenantOut(BaseModel):
    name: str
    operator: bool
    plan: str | None
    budget: float | None
    budget_warn_at: float
    budget_state: BudgetState
    created_at: datetime


class PlanOut(LimitsBody):
    name: str


@router.post("/tenants", status_code=201)
def create_tenant(body: TenantCreate, operator: Operator, state: StateDep) -> TenantOut:
    """Make a tenant; its first key is made with `tenant` at POST /keys."""
    _check_name(body.name)
    with Session(state.database, expire_on_commit=False) as session:
        tenant = Tenant(id=body.name)
        session.add(tenant)
        try:
            session.commit()
        except IntegrityError as exists:
            message = f"Tenant {body.name!r} exists already."
            raise ApiError(409, "already_exists", message, param="name") from exists
        return _shown(tenant)


@router.get("/tenants")
def list_tenants(operator: Operator, state: StateDep) -> dict[str, list[TenantOut]]:
    with Session(state.database) as session:
        rows = session.exec(select(Tenant).order_by(col(Tenant.id))).all()
        return {"data": [_shown(row) for row in rows]}


@router.patch("/tenants/{name}")
def change_tenant(name: str, body: TenantPatch, operator: Operator, state: StateDep) -> TenantOut:
    """Its plan and its budget. A budget that was used up and is raised is open again at once."""
    given = body.model_dump(exclude_unset=True)
    with Session(state.database, expire_on_commit=False) as session:
        row = session.get(Tenant, name)
        if row is None:
            raise ApiError(404, "not_found", f"There is no tenant {name!r}.")
        if "plan" in given:
            plan = given.pop("plan")
            if plan is not None and session.get(Plan, plan) is None:
                raise bad_request(f"There is no plan {plan!r}. Make it: loraplex plans set", "plan")
            row.plan_id = plan
        if given:  # the scaler looks at the budget anew
            row.budget_state = BudgetState.WITHIN.value
        row.sqlmodel_update(given)
        session.commit()
        state.keyring.forget()
        return _shown(row)


@router.put("/plans/{name}")
def set_plan(name: str, body: LimitsBody, operator: Operator, state: StateDep) -> PlanOut:
    """Make a plan, or replace all of its limits. API processes obey within LORAPLEX_KEY_CACHE_S."""
    _check_name(name)
    with Session(state.database) as session:
        row = session.get(Plan, name) or Plan(id=name)
        row.sqlmodel_update(body.model_dump())
        session.add(row)
        session.commit()
    state.keyring.forget()
    return PlanOut(name=name, **body.model_dump())


@router.get("/plans")
def list_plans(operator: Operator, state: StateDep) -> dict[str, list[PlanOut]]:
    with Session(state.database) as session:
        rows = session.exec(select(Plan).order_by(col(Plan.id))).all()
        fields = set(LimitsBody.model_fields)
        return {"data": [PlanOut(name=row.id, **row.model_dump(include=fields)) for row in rows]}


@router.delete("/plans/{name}")
def delete_plan(name: str, operator: Operator, state: StateDep) -> dict[str, Any]:
    """Refused while a tenant has it."""
    with Session(state.database) as session:
        row = session.get(Plan, name)
        if row is None:
            raise ApiError(404, "not_found", f"There is no plan {name!r}.")
        session.delete(row)
        try:
            session.commit()
        except IntegrityError as used:
            session.rollback()
            tenants = session.exec(select(Tenant.id).where(Tenant.plan_id == name)).all()
            message = f"Plan {name!r} is in use by: {', '.join(tenants)}. Give them another first."
            raise ApiError(409, "plan_in_use", message) from used
    return {"name": name, "deleted": True}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name == "none":  # which means to have no plan
        message = "name: 1 to 63 lower-case letters, digits and '-', no '-' at the ends."
        raise bad_request(message, "name")


def _shown(row: Tenant) -> TenantOut:
    fields = row.model_dump(include=set(TenantOut.model_fields))
    return TenantOut(name=row.id, plan=row.plan_id, **fields)
