"""Imports by a task worker's code: from a hub, S3 and folders, with deaths and changes of mind."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from safetensors.numpy import save
from sqlalchemy import Engine
from sqlmodel import Session, select

from loraplex.apikeys import FIRST_TENANT
from loraplex.entities import Adapter, AdapterImport, Repo, Tenant, WorkState
from loraplex.secret_box import SecretBox
from loraplex.settings import ScalerSettings
from scheduler.adapter_import import MOST_ATTEMPTS, ImportRun
from scheduler.claim import to_be_resumed
from scheduler.tasks.adapter_imports import next_in_line
from tests.conftest import ADAPTERS
from tests.fakes.hub import Hub, commit_of
from tests.fakes.hub import hub as a_hub
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3

FILES = {
    name: (ADAPTERS / "pirate" / name).read_bytes()
    for name in ("adapter_config.json", "adapter_model.safetensors")
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants

    with a_hub() as running:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", running.url, raising=False)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", running.url, raising=False)
        monkeypatch.setenv("HF_TOKEN", "the-operators")
        yield running


def ask(database: Engine, source: str, **given: object) -> str:
    with Session(database) as session:
        row = AdapterImport(tenant_id=FIRST_TENANT, source=source, repo="r", **given)
        session.add(row)
        session.commit()
        return row.id


def read(database: Engine, import_id: str) -> AdapterImport:
    with Session(database, expire_on_commit=False) as session:
        return session.get_one(AdapterImport, import_id)


def run(database: Engine, settings: ScalerSettings, source: str, **given: object) -> AdapterImport:
    import_id = ask(database, source, **given)
    one = ImportRun(database, settings, import_id)
    assert one.begin(60)
    one.carry_out()
    return read(database, import_id)


def check_registered(database: Engine, settings: ScalerSettings, row: AdapterImport) -> None:
    assert (row.state, row.error, row.progress, row.token) == ("succeeded", "", 1.0, "")
    with Session(database) as session:
        adapter = session.exec(select(Adapter)).one()
        assert (adapter.ref, session.exec(select(Repo.name)).all()) == (row.adapter, ["r"])
        folder = settings.adapters_dir / adapter.digest
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES
    left = settings.uploads_dir.iterdir() if settings.uploads_dir.exists() else ()
    assert not list(left), "the files that were fetched are gone"


def test_from_a_hub(database: Engine, settings: ScalerSettings, hub: Hub) -> None:
    hub.repos["org/pirate"] = FILES | {"README.md": b"x" * 1000}
    row = run(database, settings, "hub:org/pirate")
    check_registered(database, settings, row)
    assert row.adapter == "r/1" and not any("README" in path for path, _ in hub.asked)
    assert "the-operators" not in hub.seen_tokens, "a tenant doesn't ask in the operator's name"
    again = run(database, settings, f"hub:org/pirate@{commit_of(hub.repos['org/pirate'])}")
    assert again.adapter == "r/1", "the same content is the same version"


def test_a_private_one_by_its_token_which_is_not_kept(
    database: Engine, settings: ScalerSettings, hub: Hub
) -> None:
    hub.repos["org/own"], hub.tokens["org/own"] = FILES, "hf_secret"
    refused = run(database, settings, "hub:org/own")
    assert refused.state == "failed" and "org/own" in refused.error
    box = SecretBox(settings.secret_key, settings.secret_key_file)
    locked = box.lock("hf_secret")
    assert "hf_secret" not in locked
    assert settings.secret_key_file.stat().st_mode & 0o077 == 0
    check_registered(database, settings, run(database, settings, "hub:org/own", token=locked))
    other = SecretBox("", settings.home / "other-key").lock("hf_secret")
    assert "LORAPLEX_SECRET_KEY" in run(database, settings, "hub:org/own", token=other).error


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "could not be fetched"),
        ({"README.md": b"x"}, "no adapter_config.json"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"x"}, "Pickles"),
        (FILES | {"adapter_config.json": b"{}"}, "peft_type must be LORA"),
        (FILES | {"adapter_model.safetensors": b"x"}, "isn't a safetensors file"),
    ],
    ids=["nothing", "no adapter", "pickle", "bad config", "bad weights"],
)
def test_what_is_no_adapter_fails_with_its_reason(
    files: dict[str, bytes], told: str, database: Engine, settings: ScalerSettings, hub: Hub
) -> None:
    if files:
        hub.repos["org/x"] = files
    row = run(database, settings, "hub:org/x")
    assert row.state == WorkState.FAILED and told in row.error


def test_one_that_is_too_large_is_not_fetched(
    database: Engine, settings: ScalerSettings, hub: Hub
) -> None:
    hub.repos["org/x"] = FILES
    small = settings.model_copy(update={"max_upload_bytes": 1000})
    row = run(database, small, "hub:org/x")
    assert row.state == "failed" and "at most 1000" in row.error
    assert not any("/resolve/" in path for path, _ in hub.asked)


def test_it_is_run_by_one_at_a_time(
    database: Engine, settings: ScalerSettings, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one lives, though it was taken for dead, and holds what it fetches."""
    hub.repos["org/x"] = large()
    import_id = ask(database, "hub:org/x")
    first, heir, last = (ImportRun(database, settings, import_id) for _ in range(3))
    assert first.begin(60) and not heir.begin(60)

    def taken_for_dead(one: ImportRun) -> None:
        if one is first:
            assert to_be_resumed(database, AdapterImport, -1) == [import_id]
            assert heir.begin(60)
            heir.carry_out()
            assert read(database, import_id).state == "running", "it waits for the first one"
            assert first._claim._signs.lost.wait(60)

    with monkeypatch.context() as news:
        at_first_news(news, taken_for_dead)
        first.carry_out()
    assert read(database, import_id).state == "running"
    assert to_be_resumed(database, AdapterImport, -1) == [import_id]
    assert last.begin(60)
    last.carry_out()
    row = read(database, import_id)
    assert (row.state, row.attempts) == ("succeeded", 3)
    with Session(database) as session:
        digest = session.exec(select(Adapter.digest)).one()
    stored = (settings.adapters_dir / digest / "adapter_model.safetensors").read_bytes()
    assert stored == hub.repos["org/x"]["adapter_model.safetensors"]
    assert not first.begin(-1), "it has ended"


def test_one_that_workers_die_of_is_given_up(
    database: Engine, settings: ScalerSettings, hub: Hub
) -> None:
    hub.repos["org/x"] = FILES
    row = run(database, settings, "hub:org/x", attempts=MOST_ATTEMPTS)
    assert row.state == "failed" and "died" in row.error


def test_each_is_resumed_once_when_it_is_silent_and_two_of_a_tenant_run(
    database: Engine, settings: ScalerSettings
) -> None:
    ids = [ask(database, f"hub:org/{number}") for number in range(3)]
    assert to_be_resumed(database, AdapterImport, 60) == []
    assert sorted(to_be_resumed(database, AdapterImport, -1)) == sorted(ids)
    assert to_be_resumed(database, AdapterImport, 60) == []
    runs = [ImportRun(database, settings, each) for each in ids]
    with ThreadPoolExecutor(3) as pool:
        begun = list(pool.map(lambda run: run.begin(60), runs))
    assert sum(begun) == 2
    assert next_in_line(database) == [ids[begun.index(False)]]


def test_what_was_damaged_on_its_way_is_not_registered(
    database: Engine, settings: ScalerSettings, hub: Hub
) -> None:
    hub.repos["org/x"] = FILES
    import_id = ask(database, "hub:org/x")
    weights = settings.uploads_dir / import_id / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x" * 1000)
    digest = hashlib.sha256(FILES[weights.name]).hexdigest()
    weights.with_suffix(".etag").write_text(digest)
    one = ImportRun(database, settings, import_id)
    assert one.begin(60)
    one.carry_out()
    row = read(database, import_id)
    assert row.state == "failed" and "damaged" in row.error


class Killed(BaseException):
    """Of its worker."""


def large() -> dict[str, bytes]:
    """Of more than one of the blocks that it is fetched in."""
    linear = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{linear}.lora_A.weight": np.ones((128, 8_000), np.float32),
        f"{linear}.lora_B.weight": np.ones((8_000, 128), np.float32),
    }
    config = {"peft_type": "LORA", "r": 128, "base_model_name_or_path": "org/m"}
    return {
        "adapter_config.json": json.dumps(config).encode(),
        "adapter_model.safetensors": save(tensors),
    }


def at_first_news(monkeypatch: pytest.MonkeyPatch, act: Callable[[ImportRun], None]) -> None:
    """What happens when a part of the file has come."""
    plain = ImportRun._tell

    def tell(self: ImportRun, doing: str, progress: float | None) -> None:
        if progress:
            act(self)
        plain(self, doing, progress)

    monkeypatch.setattr(ImportRun, "_tell", tell)


def test_it_goes_on_where_a_worker_that_died_was(
    database: Engine, settings: ScalerSettings, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["org/x"] = large()
    import_id = ask(database, "hub:org/x")

    def die(one: ImportRun) -> None:
        weights = settings.uploads_dir / import_id / "adapter_model.safetensors"
        if weights.exists() and weights.stat().st_size:
            raise Killed

    with monkeypatch.context() as dying:
        at_first_news(dying, die)
        dead = ImportRun(database, settings, import_id)
        assert dead.begin(60)
        with pytest.raises(Killed):
            dead.carry_out()
    heir = ImportRun(database, settings, import_id)
    assert heir.begin(-1)
    heir.carry_out()
    assert read(database, import_id).state == "succeeded"
    ranges = [span for path, span in hub.asked if path.endswith("adapter_model.safetensors")]
    assert ranges[-1].startswith("bytes=") and int(ranges[-1][6:].partition("-")[0]) > 0


def test_one_that_is_cancelled_registers_nothing(
    database: Engine, settings: ScalerSettings, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["org/x"] = large()

    def cancel(one: ImportRun) -> None:
        with Session(database) as session:
            row = session.get_one(AdapterImport, one._id)
            row.state = WorkState.CANCELLED.value
            session.add(row)
            session.commit()
        assert one._claim._signs.lost.wait(60)

    at_first_news(monkeypatch, cancel)
    assert run(database, settings, "hub:org/x").state == "cancelled"
    assert not list(settings.uploads_dir.iterdir()), "what was fetched is gone"
    with Session(database) as session:
        assert not session.exec(select(Adapter)).all()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    with an_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment


def test_from_s3_going_on_where_it_was(
    database: Engine, settings: ScalerSettings, s3: dict[str, str]
) -> None:
    etag = put(s3, "adapters", f"{FIRST_TENANT}/pirate", FILES)["adapter_model.safetensors"]
    source = f"s3://adapters/{FIRST_TENANT}/pirate"
    import_id = ask(database, source)
    weights = settings.uploads_dir / import_id / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(FILES[weights.name][:1000])
    weights.with_suffix(".etag").write_text(etag)
    one = ImportRun(database, settings, import_id)
    assert one.begin(60)
    one.carry_out()
    check_registered(database, settings, read(database, import_id))
    nothing = run(database, settings, f"s3://adapters/{FIRST_TENANT}/none")
    assert nothing.state == "failed" and "no adapter_config.json" in nothing.error
    elsewhere = run(database, settings, "s3://adapters/other/pirate")
    assert elsewhere.state == "failed" and "LORAPLEX_S3_SOURCES" in elsewhere.error


def test_from_a_folder(database: Engine, settings: ScalerSettings) -> None:
    check_registered(database, settings, run(database, settings, str(ADAPTERS / "pirate")))
    missing = run(database, settings, os.fspath(settings.home.parent / "none"))
    assert missing.state == "failed" and "no adapter_config.json" in missing.error
    closed = settings.model_copy(update={"allow_local_models": False})
    refused = run(database, closed, str(ADAPTERS / "pirate"))
    assert refused.state == "failed" and "not imported from here" in refused.error
    (digest,) = [f.name for f in settings.adapters_dir.iterdir() if len(f.name) == 64]
    stolen = run(database, settings, str(settings.adapters_dir / digest))
    assert stolen.state == "failed" and "not imported from here" in stolen.error
    with Session(database) as session:
        session.get_one(Tenant, FIRST_TENANT).operator = False
        session.commit()
    other = run(database, settings, str(ADAPTERS / "json"))
    assert other.state == "failed" and "not imported from here" in other.error
