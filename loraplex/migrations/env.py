"""Alembic's entry: runs migrations on the URL that `loraplex.database.migrate` gives."""

from alembic import context
from sqlmodel import SQLModel

import loraplex.entities  # noqa: F401  (registers the tables)
from loraplex.database import connect

engine = connect(context.config.get_main_option("sqlalchemy.url") or "")
with engine.connect() as connection:
    if connection.dialect.name == "sqlite":  # some changes copy a table and drop the old one
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
