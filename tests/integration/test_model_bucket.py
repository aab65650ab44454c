"""Base models in a bucket: stored by who fetched them, fetched in blocks by each machine."""

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loraplex.store import manifest as manifests
from loraplex.store import ranges
from loraplex.store.arriving import Arriving
from loraplex.store.bucket import Bucket
from loraplex.store.model_bucket import ModelBucket
from loraplex.store.models import MARK, ModelStore, Stopped
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3

NAME = "org/model"
BLOCK = 1000
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-1.safetensors": random.Random(1).randbytes(5 * BLOCK),
    "model-2.safetensors": random.Random(2).randbytes(3 * BLOCK + 1),
}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> "Reads":
    return Reads(monkeypatch)


class Reads:
    """What was read of the bucket; `held` are paths whose later blocks don't come yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[tuple[str, int]] = []
        self.held: dict[str, threading.Event] = {}
        real = Bucket.read

        def read(bucket: Bucket, path: str, start: int, end: int) -> memoryview:
            if start and (gate := self.held.get(path)):
                gate.wait()
            self.of.append((path, start))
            return real(bucket, path, start, end)

        monkeypatch.setattr(Bucket, "read", read)


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """The URL of a bucket that has the model."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    url = f"file://{tmp_path}/bucket"
    ModelBucket(url, BLOCK).publish(NAME, folder, lambda *_: None)
    return url


def machine(tmp_path: Path, url: str, name: str = "machine") -> ModelStore:
    return ModelStore(tmp_path / name, allow_local=False, bucket=ModelBucket(url))


def is_whole(folder: Path) -> bool:
    return {file.name: file.read_bytes() for file in folder.iterdir()} == FILES


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with an_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        put(environment, "bucket", "elsewhere", {"x": b"x"})
        yield


@pytest.mark.usefixtures("s3")
def test_what_one_machine_fetched_others_have(tmp_path: Path) -> None:
    url, told = f"s3://bucket/{tmp_path.name}/models", []
    first = machine(tmp_path, url, "first")
    folder = first.root / "org--model"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "model.py").write_text("")  # no file of a model
    for _ in range(2):
        first.publish(NAME, first.fetch(NAME), lambda *_: None)
    second = machine(tmp_path, url, "second")
    assert is_whole(second.fetch(NAME, lambda doing, share: told.append((doing, share))))
    assert second.find(NAME) is not None
    assert max(told, key=lambda each: each[1]) == ("fetching org/model: 0 of 0 MiB", 1.0)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told(
    tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="s3://no-such-bucket/models: there is no"):
        bucket = ModelBucket("s3://no-such-bucket/models")
        bucket.publish(NAME, machine(tmp_path, stored).fetch(NAME), lambda *_: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("loraplex.store.bucket.RETRIES", {"max_retries": 1})
    with pytest.raises(OSError, match="s3://bucket/models/org--model"):
        machine(tmp_path, "s3://bucket/models", "other").fetch(NAME)


def test_who_loads_waits_for_what_it_needs_alone(tmp_path: Path, stored: str, reads: Reads) -> None:
    store = machine(tmp_path, stored)
    reads.held["org--model/model-1.safetensors"] = gate = threading.Event()
    with store.arriving(NAME) as (folder, arriving):
        assert arriving is not None
        second = folder / "model-2.safetensors"
        arriving.wait(second, 10, 3 * BLOCK + 1)
        assert second.read_bytes() == FILES[second.name]
        first = folder / "model-1.safetensors"
        arriving.wait(first, 0, BLOCK)
        assert first.read_bytes() == FILES[first.name][:BLOCK] + bytes(4 * BLOCK)
        assert store.find(NAME) is None
        gate.set()
        arriving.wait_all()
        assert first.read_bytes() == FILES[first.name]
        arriving.settled()
    assert store.find(NAME) == folder
    assert is_whole(folder)


def test_a_damaged_block_is_not_believed_and_the_others_stay(
    tmp_path: Path, stored: str, reads: Reads
) -> None:
    object_ = tmp_path / "bucket" / "org--model" / "model-1.safetensors"
    right = object_.read_bytes()
    object_.write_bytes(right[: 4 * BLOCK] + bytes(BLOCK))
    store = machine(tmp_path, stored)
    with pytest.raises(ranges.Damaged, match="4000 to 5000"):
        store.fetch(NAME)
    assert store.find(NAME) is None
    object_.write_bytes(right)
    reads.of.clear()
    assert is_whole(store.fetch(NAME))
    assert ("org--model/model-1.safetensors", 4000) in reads.of
    assert len(reads.of) < sum(1 for _ in all_blocks())


def all_blocks() -> Iterator[tuple[str, int]]:
    for name, content in FILES.items():
        yield from ((name, start) for start in range(0, len(content), BLOCK))


def test_what_a_killed_process_left_is_checked(tmp_path: Path, stored: str, reads: Reads) -> None:
    """Also what another program has put there ahead of us."""
    store = machine(tmp_path, stored)
    folder = store.root / "org--model"
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    (folder / "config.json").write_bytes(FILES["config.json"])
    (folder / "model-2.safetensors").write_bytes(FILES["model-2.safetensors"][: 2 * BLOCK])
    (folder / "model-1.safetensors").write_bytes(bytes(6 * BLOCK))
    assert store.find(NAME) is None
    assert is_whole(store.fetch(NAME))
    assert [start for path, start in reads.of if path.endswith("model-2.safetensors")] in (
        [2000, 3000],
        [3000, 2000],
    )
    assert "org--model/config.json" not in {path for path, _ in reads.of}


def test_replicas_of_a_machine_share_one_copy(tmp_path: Path, stored: str, reads: Reads) -> None:
    reads.held["org--model/model-1.safetensors"] = gate = threading.Event()
    found: list[tuple[Path, Arriving | None]] = []

    def second() -> None:
        with machine(tmp_path, stored).arriving(NAME) as it:
            found.append(it)

    with machine(tmp_path, stored).arriving(NAME) as (folder, arriving):
        assert arriving is not None
        other = threading.Thread(target=second)
        other.start()
        gate.set()
        arriving.settled()
        other.join()
    assert found == [(folder, None)]
    assert len(reads.of) == len(set(reads.of)) == sum(1 for _ in all_blocks())


def test_who_fails_meanwhile_fetches_no_more(tmp_path: Path, stored: str, reads: Reads) -> None:
    store = machine(tmp_path, stored)
    reads.held["org--model/model-2.safetensors"] = gate = threading.Event()
    with pytest.raises(ValueError, match="refused"), store.arriving(NAME):
        gate.set()
        raise ValueError("refused")
    assert is_whole(store.fetch(NAME))


def test_a_fetch_that_is_not_wanted_any_more_ends(tmp_path: Path, stored: str) -> None:
    def stop(doing: str, progress: float | None) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        machine(tmp_path, stored).fetch(NAME, stop)
    assert is_whole(machine(tmp_path, stored).fetch(NAME))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, "upgrade Loraplex"),
        ({"files": {"../x.json": {"size_bytes": 0, "sha256": []}}}, "is no file of a model"),
        ({"files": {"x.json": {"size_bytes": 1, "sha256": []}}}, "don't fit"),
        ({"files": {}, "block_bytes": 0}, "block_bytes"),
        ({"files": 1}, "Expected `object`"),
    ],
)
def test_a_manifest_that_can_not_be_right_is_refused(
    tmp_path: Path, stored: str, change: dict[str, Any], told: str
) -> None:
    file = tmp_path / "bucket" / "org--model" / manifests.NAME
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | change))
    with pytest.raises(OSError, match=told):
        machine(tmp_path, stored).fetch(NAME)


def test_a_large_object_comes_in_ranges(tmp_path: Path) -> None:
    content = os.urandom(2 * ranges.BLOCK + 5)  # several ranges
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "y").open("wb") as file:
        ranges.bring_all(Bucket(f"file://{tmp_path}"), "x", file.fileno())
    assert (tmp_path / "y").read_bytes() == content
