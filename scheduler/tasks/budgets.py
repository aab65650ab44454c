"""Watch tenants' budgets: warn, stop, begin anew with the month."""

import logging
import time

from sqlalchemy import Update, update
from sqlmodel import Session, col, select

from loraplex import lifecycle, usage, webhooks
from loraplex.budget_state import BudgetState
from loraplex.budgets import judge, month_of
from loraplex.compare_and_set import changed
from loraplex.database import connect
from loraplex.entities import Deployment, Tenant, utc_now
from loraplex.status import Event, Status
from scheduler.tasks.app import app, settings

log = logging.getLogger(__name__)
_engine = connect(settings.database)


@app.task
def check_budgets() -> None:
    """Safe to run twice: what was announced is not announced again."""
    with Session(_engine, expire_on_commit=False) as session:
        for tenant in session.exec(select(Tenant).where(col(Tenant.budget).is_not(None))).all():
            _check(session, tenant)


def _check(session: Session, tenant: Tenant) -> None:
    assert tenant.budget is not None
    now = time.time()
    month, begin = month_of(now)
    lines = usage.report(session, usage.Query(begin, int(now) + 1, tenant.id), settings.prices)
    cost = sum(line.sums.cost for line in lines)
    state = judge(cost, tenant.budget, tenant.budget_warn_at)
    if (state, month) != (tenant.budget_state, tenant.budget_month):
        moved = {"budget_state": state.value, "budget_month": month}
        if not changed(session, _as_judged(tenant).values(moved)):
            session.rollback()  # another budget was set just now
            return
        if state is not BudgetState.WITHIN:
            facts = {"month": month, "cost": round(cost, 6), "budget": tenant.budget}
            event = f"{month}-{state.value}-{tenant.budget!r}"
            webhooks.announce(session, tenant.id, f"budget.{state.value}", event, utc_now(), facts)
            log.warning("tenant=%s budget %s: %s", tenant.id, state.value, facts)
        session.commit()
    if state is BudgetState.EXCEEDED:
        _stop(session, tenant, f"the budget of {month} is used up")


def _stop(session: Session, tenant: Tenant, reason: str) -> None:
    """What could start replicas. Its owner starts it again when there is a budget."""
    at_rest = (Status.STOPPED.value, Status.DELETED.value)
    wanted = select(Deployment).where(
        Deployment.tenant_id == tenant.id, col(Deployment.status).not_in(at_rest)
    )
    for row in session.exec(wanted).all():
        # Whoever sets another budget waits until this one is stopped, or it isn't stopped any more.
        if not changed(session, _as_judged(tenant).values(budget_state=BudgetState.EXCEEDED.value)):
            session.rollback()
            return
        if lifecycle.apply(session, row, Event.STOP, actor="budget", reason=reason) is None:
            session.rollback()  # another process moved it: the next check stops it


def _as_judged(tenant: Tenant) -> Update:
    """It, where its budget is still the one that was looked at."""
    return update(Tenant).where(col(Tenant.id) == tenant.id, col(Tenant.budget) == tenant.budget)
