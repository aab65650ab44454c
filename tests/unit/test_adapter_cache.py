"""Local copies of adapters: checked, shared, and never more than the quota for long."""

import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraplex.store import adapter_cache
from loraplex.store.adapter_cache import AdapterCache, Folders
from loraplex.store.adapters import digest_of
from loraplex.store.peft_checks import CONFIG, WEIGHTS, AdapterInvalid

WEIGHTS_SIZE = 100
SIZE = WEIGHTS_SIZE + len(b"{}")


def put(store: Path, number: int) -> str:
    config, weights = b"{}", bytes([number]) * WEIGHTS_SIZE
    folder = store / digest_of(config, weights)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(config)
    (folder / WEIGHTS).write_bytes(weights)
    return folder.name


def store(folder: Path) -> Folders:
    return Folders((folder / "store").joinpath)


def kept(root: Path) -> set[str]:
    return {each.name for each in root.iterdir() if each.is_dir()}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
@settings(max_examples=25)
def test_the_least_recently_used_go(
    tmp_path_factory: pytest.TempPathFactory, used: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    digests = [put(folder / "store", number) for number in range(6)]
    cache = AdapterCache(store(folder), folder / "disk", quota_bytes=3 * SIZE)
    order: list[str] = []
    for at, number in enumerate(used):
        copy = cache.folder(digests[number])
        assert (copy / WEIGHTS).read_bytes() == bytes([number]) * WEIGHTS_SIZE
        os.utime(copy / WEIGHTS, (at, at))  # long ago, in the order of use
        order = [*(d for d in order if d != digests[number]), digests[number]]
    assert kept(folder / "disk") == set(order[-3:])


def test_one_that_was_just_given_out_stays(tmp_path: Path) -> None:
    digests = [put(tmp_path / "store", number) for number in range(5)]
    cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=SIZE)
    for digest in digests:
        cache.folder(digest)
    assert kept(tmp_path / "disk") == set(digests)


def test_replicas_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_cache, "_KEPT_S", 0.5)  # long enough to read 100 bytes
    digests = [put(tmp_path / "store", number) for number in range(8)]

    def replica(seed: int) -> int:
        cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=2 * SIZE)
        picked = [digests[(seed + at * at) % 8] for at in range(60)]
        return sum(len((cache.folder(d) / WEIGHTS).read_bytes()) == WEIGHTS_SIZE for d in picked)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(replica, range(4))) == [60] * 4


def test_a_damaged_adapter_is_not_kept(tmp_path: Path) -> None:
    digest = put(tmp_path / "store", 1)
    (tmp_path / "store" / digest / WEIGHTS).write_bytes(b"half")
    cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=SIZE)
    with pytest.raises(AdapterInvalid, match="digest"):
        cache.folder(digest)
    with pytest.raises(OSError):
        cache.folder("ab")
    assert kept(tmp_path / "disk") == set()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_copy_that_was_damaged_is_fetched_again(tmp_path: Path, name: str) -> None:
    digest = put(tmp_path / "store", 1)
    cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=SIZE)
    for damage in (Path.unlink, lambda file: file.write_bytes(b"")):
        damage(cache.folder(digest) / name)
        copy = cache.folder(digest)
        assert digest_of(copy / CONFIG, copy / WEIGHTS) == digest


def test_what_a_killed_replica_left_is_removed(tmp_path: Path) -> None:
    cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=SIZE)
    for name, at in (("fetching-old", 1), ("fetching-now", time.time())):
        (tmp_path / "disk" / name).mkdir()
        os.utime(tmp_path / "disk" / name, (at, at))
    digest = put(tmp_path / "store", 1)
    cache.folder(digest)
    assert kept(tmp_path / "disk") == {"fetching-now", digest}


def test_without_room_the_store_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    digest = put(tmp_path / "store", 1)
    cache = AdapterCache(store(tmp_path), tmp_path / "disk", quota_bytes=SIZE)
    monkeypatch.setattr(shutil, "copyfile", full)
    assert cache.folder(digest) == tmp_path / "store" / digest
