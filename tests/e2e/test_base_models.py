"""Base models on the platform's disk, by the command line of who runs it."""

import json
from pathlib import Path

import pytest

from loraplex.store.models import DEMO_MODEL
from tests.e2e.running import Platform

pytestmark = pytest.mark.e2e


def test_they_are_listed_imported_and_removed(platform: Platform, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    added = platform.loraplex("models", "import", str(tmp_path), "--name", "org/tiny-copy")
    assert added.stdout.strip() == "org/tiny-copy", added.stderr
    rows = json.loads(platform.loraplex("models", "--json").stdout)
    found = {row["name"]: row for row in rows}
    assert "chat" in found[DEMO_MODEL]["deployments"] and found[DEMO_MODEL]["size_bytes"] > 10**8
    assert found["org/tiny-copy"]["deployments"] == []
    again = platform.loraplex("models", "import", str(tmp_path), "--name", "org/tiny-copy")
    assert again.returncode != 0 and "here already" in again.stderr
    used = platform.loraplex("models", "rm", DEMO_MODEL)
    assert used.returncode != 0 and "chat" in used.stderr
    assert platform.loraplex("models", "rm", "org/tiny-copy").returncode == 0
    assert platform.loraplex("models", "rm", "org/tiny-copy").returncode != 0


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "../x", "source": "/tmp"}, "name"),
        ({"name": "org/x", "source": "hub:org/x"}, "deployment names them"),
        ({"name": "org/x", "source": "s3://elsewhere/x"}, "LORAPLEX_S3_SOURCES"),
        ({"name": "org/x"}, "source"),
    ],
    ids=str,
)
def test_what_cannot_be_one_is_refused(
    platform: Platform, body: dict[str, str], named: str
) -> None:
    answer = platform.http().post("/api/v1/base-models", json=body)
    assert answer.status_code == 400 and named in answer.text
