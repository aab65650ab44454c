"""The database connection: SQLite (WAL) in the home folder, or any SQLAlchemy URL."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event
from sqlmodel import create_engine


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
    migrate(settings.database)
    key = ClientSettings().api_key
    if key:
        with Session(connect(settings.database)) as session:
            apikeys.store(session, apikeys.FIRST_TENANT, "first", key)


if __name__ == "__main__":
    main()
