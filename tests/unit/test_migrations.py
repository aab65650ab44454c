"""A home of an earlier release can be used by this one, and by that one again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import JSON, Boolean, DateTime, Engine, Float, Integer, MetaData, Table, insert
from sqlmodel import Session, select

from loraplex.apikeys import FIRST_TENANT
from loraplex.database import alembic_config, connect, migrate
from loraplex.entities import Adapter, ApiKey, Deployment, Repo, Tenant

KNOWN: dict[str, Any] = {"id": "dep-1", "tenant_id": FIRST_TENANT, "base_model": "org/m"}
EMPTY = {
    Boolean: False,
    Integer: 1,
    Float: 1.0,
    DateTime: datetime(2026, 1, 1, tzinfo=UTC),
    JSON: [],
}


def fill(engine: Engine, name: str, **given: Any) -> None:
    """A row with something in each column that must have it, whatever the release has."""
    table = Table(name, MetaData(), autoload_with=engine)
    values = {
        c.name: given.get(c.name, next((v for t, v in EMPTY.items() if isinstance(c.type, t)), "x"))
        for c in table.columns
        if not c.nullable and (c.server_default is None or c.name in given)
    }
    with engine.begin() as connection:
        connection.execute(insert(table).values(values))


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
def test_rows_of_an_earlier_release_are_kept(revision: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'home.db'}"
    command.upgrade(alembic_config(url), revision)
    engine = connect(url)
    fill(engine, "tenant", id=FIRST_TENANT, operator=True)
    fill(engine, "apikey", id="key-1", tenant_id=FIRST_TENANT)
    fill(engine, "deployment", **KNOWN, status="standby")
    fill(engine, "replica", id="rep-1", deployment_id="dep-1")
    migrate(url)
    with Session(engine) as session:
        assert session.get_one(Tenant, FIRST_TENANT).operator
        assert session.get_one(ApiKey, "key-1").scopes == ["admin"]
        assert session.exec(select(Deployment.base_model)).all() == ["org/m"]
    command.downgrade(alembic_config(url), revision)
    migrate(url)
    with Session(engine) as session:
        assert session.get_one(Deployment, "dep-1").tenant_id == FIRST_TENANT


def test_repos_are_made_of_the_adapters_that_are_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'home.db'}"
    command.upgrade(alembic_config(url), "0005")
    engine = connect(url)
    fill(engine, "tenant", id=FIRST_TENANT)
    for version in (1, 2):
        fill(engine, "adapter", id=f"a{version}", tenant_id=FIRST_TENANT, repo="r", version=version)
    migrate(url)
    with Session(engine) as session:
        assert session.exec(select(Repo.name, Repo.tenant_id)).all() == [("r", FIRST_TENANT)]
        assert (
            session.exec(select(Adapter.archived, Adapter.deleted_at)).all() == [(False, None)] * 2
        )
    engine.dispose()
