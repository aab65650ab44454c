"""Base models from S3, folders and archives."""

import tarfile
import zipfile
from pathlib import Path

import pytest
from sqlalchemy import Engine

from loraplex.settings import ScalerSettings
from loraplex.store.models import ModelStore
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3
from tests.integration.test_adapter_imports import run

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "modeling.py": b"raise SystemExit",
}
NAME = "org/model"


def check(settings: ScalerSettings) -> None:
    folder = ModelStore(settings.models_dir, allow_local=False).find(NAME)
    assert folder is not None
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {
        name: content for name, content in FILES.items() if name != "modeling.py"
    }
    left = settings.uploads_dir.iterdir() if settings.uploads_dir.exists() else ()
    assert not list(left), "nothing is left of how it came"


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the server, not below the home."""
    folder = tmp_path_factory.mktemp("outside") / "model"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def test_from_a_folder(database: Engine, settings: ScalerSettings, outside: Path) -> None:
    row = run(database, settings, str(outside), model=NAME)
    assert (row.state, row.error, row.adapter) == ("succeeded", "", NAME)
    check(settings)
    again = run(database, settings, str(outside), model=NAME)
    assert again.state == "failed" and "is here already" in again.error


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_from_an_archive(
    kind: str, database: Engine, settings: ScalerSettings, outside: Path
) -> None:
    archive = outside.with_suffix(f".{kind}")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for name in FILES:
                zipped.write(outside / name, f"deep/{name}")
            zipped.writestr("../elsewhere.json", "{}")
    else:
        with tarfile.open(archive, "w:gz") as tarred:
            tarred.add(outside, "deep")
    row = run(database, settings, str(archive), model=NAME)
    assert (row.state, row.error) == ("succeeded", "")
    check(settings)


def test_from_s3(
    database: Engine, settings: ScalerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with an_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        put(environment, "adapters", "dev/base", FILES)
        row = run(database, settings, "s3://adapters/dev/base", model=NAME)
        assert (row.state, row.error) == ("succeeded", "")
        check(settings)
        nothing = run(database, settings, "s3://adapters/dev/none", model="org/none")
        assert nothing.state == "failed" and "could not be fetched" in nothing.error


def test_what_has_no_room_or_is_no_model_does_not_come(
    database: Engine, settings: ScalerSettings, outside: Path
) -> None:
    small = settings.model_copy(update={"models_gib": 1e-6})
    full = run(database, small, str(outside), model=NAME)
    assert full.state == "failed" and "LORAPLEX_MODELS_GIB" in full.error
    (outside / "tokenizer.json").unlink()
    broken = run(database, settings, str(outside), model=NAME)
    assert broken.state == "failed" and "tokenizer.json" in broken.error
    hub = run(database, settings, "hub:org/x", model=NAME)
    assert hub.state == "failed" and "when a deployment names them" in hub.error
