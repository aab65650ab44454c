"""The database connection: SQLite (WAL) in the home folder, or any SQLAlchemy URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, text
from sqlmodel import create_engine

_MIGRATING = 0x6C70_7821  # of an advisory lock


def connect(url: str) -> Engine:
    """An engine for `url`. SQLite waits up to 10 s for another process' write. Errors don't tell
    what was to be written: it may be somebody's prompt."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, hide_parameters=True)
    engine = create_engine(url, connect_args={"timeout": 10}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def migrate(url: str) -> None:
    """Bring the schema to the newest revision. Safe to run again."""
    command.upgrade(alembic_config(url), "head")


@contextmanager
def one_at_a_time(database: Engine) -> Iterator[None]:
    """Processes on many machines that would migrate at once wait for each other. On SQLite there is
    one machine, and one process that does."""
    if database.dialect.name != "postgresql":
        yield
        return
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _MIGRATING})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATING})


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def main() -> None:
    """`python -m loraplex.database`: migrate; make LORAPLEX_API_KEY valid for the first tenant."""
    from sqlmodel import Session

    from loraplex import apikeys
    from loraplex.settings import ClientSettings, Settings

    settings = Settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    key = ClientSettings().api_key
    database = connect(settings.database)
    with one_at_a_time(database):
        migrate(settings.database)
        if key:
            with Session(database) as session:
                apikeys.store(session, apikeys.FIRST_TENANT, "first", key)


if __name__ == "__main__":
    main()
