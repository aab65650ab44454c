"""A machine's copies of base models: shared by its replicas, theirs while they live."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_worker.base_model import base_model, in_home
from loraplex.store import in_use
from loraplex.store.arriving import Arriving
from loraplex.store.model_bucket import ModelBucket
from loraplex.store.model_copies import ModelCopies, NotStored
from loraplex.store.models import is_whole
from loraplex.worker_settings import WorkerSettings
from tests.a_model_bucket import BLOCK, BLOCKS, FILES, NAME, Reads, has_all, publish, write

SIZE = sum(map(len, FILES.values()))
HOLDS = """
import sys
from pathlib import Path
from loraplex.store.in_use import hold
hold(Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def this_process_uses_nothing() -> Iterator[None]:
    yield
    let_go()


def let_go() -> None:
    while in_use._HELD:
        in_use._HELD.pop().close()


def copies(tmp_path: Path, url: str, quota: int | None = None) -> ModelCopies:
    return ModelCopies(tmp_path / "disk", ModelBucket(url), quota)


def fetched(of: ModelCopies, name: str = NAME) -> Path:
    folder, arriving = of.begin(name)
    if arriving is not None:
        arriving.finish()
    return folder


def test_who_loads_waits_for_what_it_needs_alone(tmp_path: Path, stored: str, reads: Reads) -> None:
    gate = reads.hold("model-1.safetensors")
    folder, arriving = copies(tmp_path, stored).begin(NAME)
    assert arriving is not None
    second = folder / "model-2.safetensors"
    arriving.wait(second, 10, 3 * BLOCK + 1)
    assert second.read_bytes() == FILES[second.name]
    first = folder / "model-1.safetensors"
    arriving.wait(first, 0, BLOCK)
    assert first.read_bytes() == FILES[first.name][:BLOCK] + bytes(4 * BLOCK)
    assert not is_whole(folder)
    gate.set()
    arriving.wait_all()
    assert first.read_bytes() == FILES[first.name]
    arriving.finish()
    assert is_whole(folder) and has_all(folder)


def test_replicas_of_a_machine_share_one_copy(tmp_path: Path, stored: str, reads: Reads) -> None:
    gate = reads.hold("model-1.safetensors")
    found: list[tuple[Path, Arriving | None]] = []
    folder, arriving = copies(tmp_path, stored).begin(NAME)
    assert arriving is not None
    other = threading.Thread(target=lambda: found.append(copies(tmp_path, stored).begin(NAME)))
    other.start()
    gate.set()
    arriving.finish()
    other.join()
    assert found == [(folder, None)]
    assert sorted(reads.of) == sorted(BLOCKS)


def test_a_name_that_means_something_else_is_another_copy(tmp_path: Path, stored: str) -> None:
    before = fetched(copies(tmp_path, stored))
    changed = FILES | {"config.json": b"{ }"}
    publish(stored, write(tmp_path / "changed", changed))
    after = fetched(copies(tmp_path, stored))
    assert has_all(before) and has_all(after, changed)


def test_while_the_bucket_is_away_the_latest_copy_is_used(tmp_path: Path, stored: str) -> None:
    folder = fetched(copies(tmp_path, stored))
    away = copies(tmp_path, "gs://nowhere")
    assert away.begin(NAME) == (folder, None)
    with pytest.raises(OSError, match="gs://nowhere"):
        away.begin("org/other")
    with pytest.raises(NotStored, match=r"'org/absent' isn't in file:///"):
        copies(tmp_path, stored).begin("org/absent")


def test_room_is_made_by_what_no_process_uses(tmp_path: Path, stored: str) -> None:
    first = fetched(copies(tmp_path, stored, quota=2 * SIZE - 1))
    let_go()
    command = [sys.executable, "-c", HOLDS, str(first)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None and user.stdout.readline() == "holds\n"
        with pytest.raises(OSError, match=r"'org/other@.* In use: org/model@"):
            copies(tmp_path, stored, quota=2 * SIZE - 1).begin("org/other")
        assert has_all(first)
        user.kill()
    second = fetched(copies(tmp_path, stored, quota=2 * SIZE - 1), "org/other")
    assert not first.exists()
    assert is_whole(second)


def test_what_is_just_being_fetched_counts_once_and_stays(
    tmp_path: Path, stored: str, reads: Reads
) -> None:
    gate = reads.hold("model-1.safetensors")
    _, first = copies(tmp_path, stored, quota=2 * SIZE).begin(NAME)
    let_go()
    _, second = copies(tmp_path, stored, quota=2 * SIZE).begin("org/other")
    gate.set()
    for arriving in (first, second):
        assert arriving is not None
        arriving.finish()
    assert len([each for each in (tmp_path / "disk").glob("org--*") if is_whole(each)]) == 2


def replica(tmp_path: Path, **settings: object) -> WorkerSettings:
    return WorkerSettings.model_validate({"home": tmp_path / "home"} | settings)


def test_a_replica_looks_where_its_machine_has_models(tmp_path: Path, stored: str) -> None:
    store, disk = {"model_store": stored}, {"model_disk": tmp_path / "disk"}
    for settings, root in (
        (replica(tmp_path, **store), tmp_path / "home" / "model-copies"),
        (replica(tmp_path, **store, **disk), tmp_path / "disk"),
    ):
        with base_model(settings, NAME) as (folder, arriving):
            assert folder.parent == root and arriving is not None
            arriving.finish()
    home = write(tmp_path / "home" / "models" / "org--model")
    for settings, there in (
        (replica(tmp_path), home),
        (replica(tmp_path, **disk), home),  # without a store there are no copies
        (replica(tmp_path, **store), home),
        (replica(tmp_path, **store, **disk), folder),
    ):
        with base_model(settings, NAME) as found:
            assert found == (there, None)


def test_a_model_that_the_bucket_has_not_yet_is_read_from_the_home_or_told(
    tmp_path: Path, stored: str
) -> None:
    settings = replica(tmp_path, model_store=stored, model_disk=tmp_path / "disk")
    with (
        pytest.raises(OSError, match="A deployment that names it"),
        base_model(settings, "org/new"),
    ):
        raise AssertionError("it isn't anywhere")
    home = write(tmp_path / "home" / "models" / "org--new")
    with base_model(settings, "org/new") as found:
        assert found == (home, None)


def test_what_the_bucket_can_not_give_is_read_from_the_home(
    tmp_path: Path, stored: str, reads: Reads
) -> None:
    (config,) = (tmp_path / "bucket").glob("org--model/*/config.json")
    config.write_bytes(b"[]")
    settings = replica(tmp_path, model_store=stored, model_disk=tmp_path / "disk")
    with pytest.raises(OSError, match=r"config\.json: bytes 0 to 2"), base_model(settings, NAME):
        raise AssertionError("it is damaged")
    home = write(tmp_path / "home" / "models" / "org--model")
    with base_model(settings, NAME) as found:
        assert found == (home, None)
    assert in_home(settings, NAME) == home


def test_a_copy_that_was_cut_off_is_mended(tmp_path: Path, stored: str, reads: Reads) -> None:
    folder = fetched(copies(tmp_path, stored))
    (folder / "model-1.safetensors").write_bytes(FILES["model-1.safetensors"][:BLOCK])
    reads.of.clear()
    assert fetched(copies(tmp_path, stored)) == folder
    assert has_all(folder)
    assert {name for name, _ in reads.of} == {"model-1.safetensors"}


def test_a_replica_that_fails_meanwhile_fetches_no_more(
    tmp_path: Path, stored: str, reads: Reads
) -> None:
    gate = reads.hold("model-2.safetensors")
    settings = replica(tmp_path, model_store=stored)
    with pytest.raises(ValueError, match="refused"), base_model(settings, NAME):
        gate.set()
        raise ValueError("refused")
    with base_model(settings, NAME) as (folder, arriving):
        if arriving is not None:
            arriving.finish()
        assert has_all(folder)
