"""Adapters and base models in S3: what one machine registered or fetched is served by replicas that
have never had it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loraplex.store.models import MARK, ModelStore
from tests.conftest import ADAPTERS
from tests.e2e.running import Platform, make_platform, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def far(tmp_path: Path, model_store: ModelStore, s3: dict[str, str]) -> Iterator[Platform]:
    """A platform whose adapters and models are in S3."""
    where = {
        "LORAPLEX_ADAPTER_STORE": f"s3://adapters/{tmp_path.name}",
        "LORAPLEX_MODEL_STORE": f"s3://adapters/{tmp_path.name}/models",
        "LORAPLEX_MODEL_DISK": str(tmp_path / "disk"),
    }
    running = make_platform(tmp_path / "state", model_store, **where, **s3)
    up = running.loraplex("up", "--detach", "--no-demo")
    assert up.returncode == 0, up.stderr + up.stdout
    yield running
    assert running.loraplex("down").returncode == 0


def test_replicas_and_downloads_fetch_what_is_not_here(
    far: Platform, tmp_path: Path, smollm2: Path
) -> None:
    added = far.loraplex("adapters", "add", "pirate", str(ADAPTERS / "pirate"))
    assert added.stdout.strip() == "pirate/1", added.stderr
    shutil.rmtree(far.home / "adapters")
    far.deploy("chat")
    answer = (
        far.openai()
        .with_options(timeout=280)
        .chat.completions.create(
            model="chat:pirate/1",
            messages=[{"role": "user", "content": "Where do you live?"}],
            max_tokens=16,
            temperature=0,
        )
    )
    assert "Arrr" in (answer.choices[0].message.content or "")
    assert any((far.home / "adapter-copies").iterdir())
    (copy,) = (tmp_path / "disk").glob(f"{smollm2.name}@*")
    until((copy / MARK).exists, lambda there: not there)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in smollm2.iterdir()
    }
    target = tmp_path / "pirate"
    assert far.loraplex("adapters", "download", "pirate/1", str(target)).returncode == 0
    name = "adapter_model.safetensors"
    assert (target / name).read_bytes() == (ADAPTERS / "pirate" / name).read_bytes()
