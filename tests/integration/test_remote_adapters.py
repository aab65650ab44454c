"""Adapters in S3: put by one machine, read by others, removed when nobody can need them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlmodel import Session

from loraplex.apikeys import FIRST_TENANT
from loraplex.entities import Adapter
from loraplex.limits import StorageLimit
from loraplex.registry import Registry
from loraplex.store.adapter_cache import AdapterCache
from loraplex.store.adapters import AdapterInvalid, AdapterStore
from loraplex.store.models import ModelStore
from loraplex.store.peft_checks import CONFIG, WEIGHTS
from loraplex.store.remote_adapters import RemoteAdapters
from tests.conftest import ADAPTERS
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3

FILES = tuple((ADAPTERS / "pirate" / name).read_bytes() for name in (CONFIG, WEIGHTS))


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RemoteAdapters]:
    """A folder of its own: moto's servers share what they hold."""
    with an_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        put(environment, "bucket", "elsewhere", {"x": b"x"})
        yield RemoteAdapters(f"s3://bucket/{tmp_path.name}")


@pytest.fixture
def machine(tmp_path: Path, remote: RemoteAdapters) -> Callable[[str], AdapterStore]:
    url = f"s3://bucket/{tmp_path.name}"
    return lambda name: AdapterStore(tmp_path / name, RemoteAdapters(url))


def test_what_one_machine_stores_others_have(
    machine: Callable[[str], AdapterStore], remote: RemoteAdapters, tmp_path: Path
) -> None:
    facts = machine("one").put(*FILES, None)
    assert remote.has(facts.digest)
    other = machine("two")
    assert other.use(facts.digest)
    assert (other.locate(facts.digest) / WEIGHTS).read_bytes() == FILES[1]
    assert not other.use("0" * 64)
    with pytest.raises(FileNotFoundError):
        other.locate("0" * 64)
    cache = AdapterCache(remote, tmp_path / "disk", 10**9)
    assert (cache.folder(facts.digest) / CONFIG).read_bytes() == FILES[0]


def test_what_was_damaged_there_is_not_believed(
    machine: Callable[[str], AdapterStore], remote: RemoteAdapters, tmp_path: Path
) -> None:
    digest = machine("one").put(*FILES, None).digest
    (tmp_path / CONFIG).write_bytes(FILES[0])
    (tmp_path / WEIGHTS).write_bytes(FILES[1][:-1])
    remote.put(digest, tmp_path)
    with pytest.raises(AdapterInvalid, match="digest"):
        machine("two").locate(digest)
    with pytest.raises(AdapterInvalid, match="digest"):
        AdapterCache(remote, tmp_path / "disk", 10**9).folder(digest)


def test_a_store_that_is_away_is_an_os_error_and_copies_go_on(
    machine: Callable[[str], AdapterStore],
    remote: RemoteAdapters,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = machine("one").put(*FILES, None).digest
    cache = AdapterCache(remote, tmp_path / "disk", 10**9)
    cache.folder(digest)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = RemoteAdapters("s3://bucket/x")
    with pytest.raises(OSError):
        away.has(digest)
    copies = AdapterCache(away, tmp_path / "disk", 10**9)
    assert (copies.folder(digest) / WEIGHTS).exists()
    with pytest.raises(OSError):
        copies.folder("1" * 64)


def test_nobodys_is_removed_and_somebodys_comes_back(
    machine: Callable[[str], AdapterStore],
    remote: RemoteAdapters,
    database: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scheduler.tasks import storage

    store = machine("one")
    digest = store.put(*FILES, None).digest
    assert storage.clean_adapters(database, store, 3600, remote) == 0, "just stored"
    limit = StorageLimit(None, 3600)
    registry = Registry(database, store, ModelStore(tmp_path / "models", allow_local=False), limit)
    real, seen = storage._live, []

    def late(engine: Engine, kept_s: float) -> set[str]:
        """Registered between the two looks."""
        found = real(engine, kept_s)
        if not seen:
            seen.append(registry.register(FIRST_TENANT, "p", "m", *FILES))
        return found

    monkeypatch.setattr(storage, "_live", late)
    assert storage.clean_adapters(database, store, -1, remote) == 0
    assert remote.has(digest), "brought back"
    assert not store.folder(digest).exists(), "a copy that nobody used goes"
    assert store.locate(digest).exists()
    with Session(database) as session:
        session.delete(session.merge(seen[0]))
        session.commit()
    assert storage.clean_adapters(database, store, -1, remote) == 1
    assert not remote.has(digest) and not store.folder(digest).exists()
    assert isinstance(registry.register(FIRST_TENANT, "p", "m", *FILES), Adapter)
    assert remote.has(digest)
