"""A home with a database in which there is the tenant that runs the platform."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from loraplex.apikeys import FIRST_TENANT
from loraplex.database import connect, migrate
from loraplex.entities import Tenant
from loraplex.settings import ScalerSettings
from tests.a_model_bucket import FILES, Reads, publish, write


@pytest.fixture
def settings(tmp_path: Path) -> ScalerSettings:
    return ScalerSettings(home=tmp_path, s3_sources=["s3://adapters/{tenant}"])


@pytest.fixture
def database(settings: ScalerSettings) -> Iterator[Engine]:
    migrate(settings.database)
    engine = connect(settings.database)
    with Session(engine) as session:
        session.add(Tenant(id=FIRST_TENANT, operator=True))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """The URL of a bucket that has two models of one size."""
    url = f"file://{tmp_path}/bucket"
    publish(url, write(tmp_path / "fetched"))
    other = FILES | {"model-2.safetensors": bytes(len(FILES["model-2.safetensors"]))}
    publish(url, write(tmp_path / "other", other), "org/other")
    return url


@pytest.fixture
def silent_redis() -> Iterator[dict[str, str]]:
    """Settings of a replica that lives for some seconds: its Redis takes calls, and is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield {"LORAPLEX_REDIS_URL": f"redis://127.0.0.1:{server.getsockname()[1]}/0"}
