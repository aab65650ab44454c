"""What the watch over budgets does to a tenant's deployments."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlmodel import Session, select

from loraplex import usage
from loraplex.apikeys import FIRST_TENANT
from loraplex.budget_state import BudgetState
from loraplex.budgets import month_of
from loraplex.entities import Deployment, DeploymentEvent, Tenant
from loraplex.status import Status
from scheduler.tasks import budgets


@pytest.fixture
def spent(database: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A tenant with two deployments that has used up its budget, and knows it."""
    with Session(database) as session:
        month, _ = month_of(time.time())
        known = {"budget_state": BudgetState.EXCEEDED.value, "budget_month": month}
        session.execute(update(Tenant).values(budget=5.0, **known))
        for name in ("one", "two"):
            session.add(a_deployment(name))
        session.commit()
    monkeypatch.setattr(budgets, "_engine", database)
    return database


def a_deployment(name: str) -> Deployment:
    return Deployment(
        tenant_id=FIRST_TENANT,
        name=name,
        base_model="org/model",
        min_replicas=0,
        max_replicas=1,
        cooldown_time=60,
        scale_up_threshold=1,
        status=Status.STANDBY.value,
    )


def report(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda: None) -> None:
    def costs(*_: object) -> list[Any]:
        meanwhile()
        return [SimpleNamespace(sums=SimpleNamespace(cost=7.0))]

    monkeypatch.setattr(usage, "report", costs)


def statuses(database: Engine) -> list[str]:
    with Session(database) as session:
        return list(session.exec(select(Deployment.status)).all())


def test_all_that_could_start_is_stopped_once(
    spent: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(monkeypatch)
    budgets.check_budgets()
    budgets.check_budgets()
    assert statuses(spent) == ["stopped", "stopped"]
    with Session(spent) as session:
        told = session.exec(select(DeploymentEvent)).all()
    assert [(each.actor, each.kind) for each in told] == [("budget", "stop")] * 2


@pytest.mark.parametrize("budget", [None, 100.0])
def test_a_budget_that_was_changed_meanwhile_stops_nothing(
    spent: Engine, monkeypatch: pytest.MonkeyPatch, budget: float | None
) -> None:
    def change() -> None:
        with Session(spent) as session:
            session.execute(update(Tenant).values(budget=budget))
            session.commit()

    report(monkeypatch, change)
    budgets.check_budgets()
    assert statuses(spent) == ["standby", "standby"]
