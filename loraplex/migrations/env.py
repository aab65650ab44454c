"""Alembic's entry: runs migrations on the URL that `loraplex.database.migrate` gives."""

from alembic import context
from sqlmodel import SQLModel

import loraplex.entities  # noqa: F401  (registers the tables)
from loraplex.database import connect

engine = connect(context.config.get_main_option("sqlalchemy.url") or "")
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
