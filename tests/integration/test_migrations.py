"""On SQLite and PostgreSQL: every migration can be taken back and done again, the tables are what
the entities say, and many processes may migrate at once."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect
from sqlmodel import Session, SQLModel, select

from loraplex import entities
from loraplex.database import alembic_config, connect
from loraplex.entities import ApiKey, Tenant
from tests import postgres


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    yield engine
    engine.dispose()


def _schema(database: Engine) -> dict[str, Any]:
    """Tables by name: columns (without their order), indexes."""
    looked = inspect(database)
    return {
        table: (
            {c["name"]: (str(c["type"]), c["nullable"]) for c in looked.get_columns(table)},
            {i["name"]: (i["column_names"], bool(i["unique"])) for i in looked.get_indexes(table)},
        )
        for table in looked.get_table_names()
    }


def test_each_is_taken_back_and_done_again(database_url: str, database: Engine) -> None:
    config = alembic_config(database_url)
    revisions = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]
    for revision, earlier in zip(revisions, [*revisions[1:], "base"], strict=True):
        before = _schema(database)
        command.downgrade(config, earlier)
        taken_back = _schema(database)
        command.upgrade(config, revision)
        assert _schema(database) == before, f"{revision} is not what it was"
        command.downgrade(config, earlier)
        assert _schema(database) == taken_back
    assert set(_schema(database)) == {"alembic_version"}
    command.upgrade(config, "head")


def test_the_tables_are_what_the_entities_say(database: Engine) -> None:
    assert entities.Deployment.__tablename__ in SQLModel.metadata.tables
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_many_at_once_wait_for_each_other(postgres_url: str) -> None:
    name = f"test_{secrets.token_hex(4)}"
    postgres.create(postgres_url, name)
    url = postgres_url + name
    environment = os.environ | {"LORAPLEX_DATABASE_URL": url, "LORAPLEX_API_KEY": "pb_first"}
    command = [sys.executable, "-m", "loraplex.database"]
    running = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [each.wait(120) for each in running] == [0] * 4
    engine = connect(url)
    with Session(engine) as session:
        assert len(session.exec(select(Tenant)).all()) == 1
        assert len(session.exec(select(ApiKey)).all()) == 1
    engine.dispose()
