"""What isn't there for a while is told as that, in each surface's shape."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from api import errors
from loraplex.database import connect


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Of an API whose database is a folder."""
    app = FastAPI()
    errors.install(app)

    @app.get("/v1/models")
    @app.get("/api/v1/keys")
    def ask() -> None:
        with connect(f"sqlite:///{tmp_path}").connect() as connection:
            connection.execute(text("select 1"))

    with TestClient(app) as client:
        yield client


def test_a_database_that_is_away_is_503(client: TestClient) -> None:
    openai, control = client.get("/v1/models"), client.get("/api/v1/keys")
    assert openai.status_code == control.status_code == 503
    assert openai.json()["error"]["code"] == control.json()["title"] == "database_unavailable"
    assert openai.headers["retry-after"] == "2"
