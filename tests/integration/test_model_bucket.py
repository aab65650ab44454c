"""Base models in a bucket: stored by who fetched them, fetched in checked blocks by others."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loraplex.store import manifest as manifests
from loraplex.store import ranges
from loraplex.store.bucket import Bucket
from loraplex.store.model_bucket import ModelBucket
from loraplex.store.models import MARK, ModelStore, Stopped
from tests.a_model_bucket import BLOCK, BLOCKS, FILES, NAME, Reads, has_all, publish, write
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with an_s3() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        put(environment, "bucket", "elsewhere", {"x": b"x"})
        yield


def store_at(root: Path, url: str) -> ModelStore:
    return ModelStore(root, allow_local=False, bucket=ModelBucket(url, BLOCK))


@pytest.mark.usefixtures("s3")
def test_what_one_home_fetched_others_have(tmp_path: Path, reads: Reads) -> None:
    url, told = f"s3://bucket/{tmp_path.name}/models", []
    first = store_at(tmp_path / "first", url)
    folder = write(first.root / "org--model", FILES | {"model.py": b"", manifests.NAME: b"{}"})
    for _ in range(2):
        first.publish(NAME, first.fetch(NAME), lambda *_: None)
    second = store_at(tmp_path / "second", url)
    assert has_all(second.fetch(NAME, lambda doing, share: told.append((doing, share))))
    assert second.find(NAME) is not None
    assert max(told, key=lambda each: each[1]) == ("fetching org/model: 0 of 0 MiB", 1.0)
    assert folder.exists() and set(reads.of) == BLOCKS


def test_a_name_that_gets_other_weights_gets_them_everywhere(tmp_path: Path, stored: str) -> None:
    other = FILES | {"model-2.safetensors": bytes(3 * BLOCK + 1)}
    home = store_at(tmp_path / "home", stored)
    home.publish(NAME, write(home.root / "org--model", other), lambda *_: None)
    assert has_all(store_at(tmp_path / "elsewhere", stored).fetch(NAME), other)


def test_what_is_known_to_be_stored_is_not_read_again(
    tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = store_at(tmp_path / "home", stored)
    folder = write(home.root / "org--model")
    home.publish(NAME, folder, lambda *_: None)

    def reads_it(*_: object) -> None:
        raise AssertionError("it is read again")

    with monkeypatch.context() as patched:
        patched.setattr(manifests, "of_folder", reads_it)
        home.publish(NAME, folder, lambda *_: None)
        (folder / "config.json").write_bytes(b"{ }")
        with pytest.raises(AssertionError, match="read again"):
            home.publish(NAME, folder, lambda *_: None)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="s3://no-such-bucket/models: there is no"):
        publish("s3://no-such-bucket/models", write(tmp_path / "fetched"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("loraplex.store.bucket.RETRIES", {"max_retries": 1})
    with pytest.raises(OSError, match="s3://bucket/models/org--model"):
        store_at(tmp_path, "s3://bucket/models").fetch(NAME)
    with pytest.raises(OSError, match="s3://BUCKET/PREFIX"):
        store_at(tmp_path, "gs://bucket/models").fetch(NAME)


def test_a_damaged_block_is_not_believed_and_the_others_stay(
    tmp_path: Path, stored: str, reads: Reads
) -> None:
    (stored_file,) = (tmp_path / "bucket").glob("org--model/*/model-1.safetensors")
    right = stored_file.read_bytes()
    stored_file.write_bytes(right[: 4 * BLOCK] + bytes(BLOCK))
    store = store_at(tmp_path / "home", stored)
    told = r"file:///.*/model-1.safetensors: bytes 4000 to 5000 .*Remove the object"
    with pytest.raises(ranges.Damaged, match=told):
        store.fetch(NAME)
    assert store.find(NAME) is None
    stored_file.write_bytes(right)
    reads.of.clear()
    assert has_all(store.fetch(NAME))
    assert ("model-1.safetensors", 4 * BLOCK) in reads.of
    assert len(reads.of) < len(BLOCKS)


def test_what_a_killed_process_left_is_checked(tmp_path: Path, stored: str, reads: Reads) -> None:
    store = store_at(tmp_path / "home", stored)
    folder = write(
        store.root / "org--model",
        {
            MARK: b"",
            "config.json": FILES["config.json"],
            "model-2.safetensors": FILES["model-2.safetensors"][: 2 * BLOCK],
            "model-1.safetensors": bytes(6 * BLOCK),
        },
    )
    assert store.find(NAME) is None
    assert store.fetch(NAME) == folder
    assert has_all(folder)
    kept = {("config.json", 0), ("model-2.safetensors", 0), ("model-2.safetensors", BLOCK)}
    assert sorted(reads.of) == sorted(BLOCKS - kept)


def test_a_disk_that_takes_a_part_of_a_block_is_given_the_rest(
    tmp_path: Path, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, at: real(file, content[:300], at))
    assert has_all(store_at(tmp_path / "home", stored).fetch(NAME))


def test_a_fetch_that_is_not_wanted_any_more_ends(tmp_path: Path, stored: str) -> None:
    def stop(doing: str, progress: float | None) -> None:
        raise Stopped

    store = store_at(tmp_path / "home", stored)
    with pytest.raises(Stopped):
        store.fetch(NAME, stop)
    assert has_all(store.fetch(NAME))


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
        store_at(tmp_path / "home", stored).fetch(NAME)


def test_a_large_object_comes_in_ranges(tmp_path: Path) -> None:
    content = os.urandom(2 * ranges.BLOCK + 5)  # several ranges
    (tmp_path / "x").write_bytes(content)
    with (tmp_path / "y").open("wb") as file:
        ranges.bring_all(Bucket(f"file://{tmp_path}"), "x", file.fileno())
    assert (tmp_path / "y").read_bytes() == content


def test_objects_that_are_lost_or_cut_off_are_stored_again(tmp_path: Path, stored: str) -> None:
    home = store_at(tmp_path / "home", stored)
    folder = write(home.root / "org--model")
    (weights,) = (tmp_path / "bucket").glob("org--model/*/model-1.safetensors")
    (config,) = (tmp_path / "bucket").glob("org--model/*/config.json")
    for _ in range(2):  # the folder is read, the folder is known
        weights.write_bytes(b"cut off")
        config.unlink()
        home.publish(NAME, folder, lambda *_: None)
        assert has_all(store_at(tmp_path / "elsewhere", stored).fetch(NAME))
