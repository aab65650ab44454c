"""A bucket with a model in small blocks, for tests."""

import random
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from loraplex.store.bucket import Bucket
from loraplex.store.model_bucket import ModelBucket

NAME = "org/model"
BLOCK = 1000
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-1.safetensors": random.Random(1).randbytes(5 * BLOCK),
    "model-2.safetensors": random.Random(2).randbytes(3 * BLOCK + 1),
}
BLOCKS = {
    (name, start) for name, content in FILES.items() for start in range(0, len(content), BLOCK)
}


def write(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def publish(url: str, folder: Path, name: str = NAME) -> None:
    note = folder.with_suffix(".published")
    ModelBucket(url, BLOCK).publish(name, folder, lambda *_: None, note)


def has_all(folder: Path, files: Mapping[str, bytes] = FILES) -> bool:
    return {file.name: file.read_bytes() for file in folder.iterdir()} == files


class Reads:
    """What was read of the bucket's files; later blocks of those that are held don't come yet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: list[tuple[str, int]] = []
        self._held: dict[str, threading.Event] = {}
        real = Bucket.read

        def read(bucket: Bucket, path: str, start: int, end: int) -> memoryview:
            name = path.rpartition("/")[2]
            if start and (gate := self._held.get(name)):
                gate.wait()
            self.of.append((name, start))
            return real(bucket, path, start, end)

        monkeypatch.setattr(Bucket, "read", read)

    def hold(self, name: str) -> threading.Event:
        """Set it, and they come."""
        return self._held.setdefault(name, threading.Event())
