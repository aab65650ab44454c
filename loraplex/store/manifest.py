"""What a model in a bucket is made of: written last, so that where it is, all is."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import msgspec

from loraplex.store.models import is_model_file

NAME = "loraplex-manifest.json"
_VERSION = 1


class StoredFile(msgspec.Struct, frozen=True):
    size_bytes: int
    sha256: list[str]  # of each block


class Manifest(msgspec.Struct, frozen=True):
    files: dict[str, StoredFile]
    block_bytes: Annotated[int, msgspec.Meta(ge=1)]
    version: int = _VERSION

    @property
    def digest(self) -> str:
        """Of the model's content."""
        return hashlib.sha256(encode(self)).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def fits(self, folder: Path) -> bool:
        """By the files' sizes."""
        return all(
            (folder / name).exists() and (folder / name).stat().st_size == file.size_bytes
            for name, file in self.files.items()
        )

    def blocks(self, file: str) -> Iterable[tuple[int, int, str]]:
        """From …, to before …, digest."""
        stored = self.files[file]
        starts = range(0, stored.size_bytes, self.block_bytes)
        for start, digest in zip(starts, stored.sha256, strict=True):
            yield start, min(start + self.block_bytes, stored.size_bytes), digest


def of_folder(folder: Path, block_bytes: int) -> Manifest:
    """Reads all of it."""
    files = sorted(file for file in folder.iterdir() if _is_part(file.name))
    with ThreadPoolExecutor(os.cpu_count(), "digest") as pool:
        stored = {file.name: _stored(file, block_bytes, pool) for file in files}
    return Manifest(stored, block_bytes)


def _is_part(name: str) -> bool:
    return is_model_file(name) and name != NAME and "/" not in name


def _stored(file: Path, block: int, pool: ThreadPoolExecutor) -> StoredFile:
    size = file.stat().st_size
    with file.open("rb") as opened:
        number = opened.fileno()
        digests = pool.map(
            lambda start: digest_at(number, start, start + block), range(0, size, block)
        )
        return StoredFile(size, list(digests))


def digest_at(descriptor: int, start: int, end: int) -> str:
    """Of the bytes of a file that is open."""
    return hashlib.sha256(os.pread(descriptor, end - start, start)).hexdigest()


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode(raw: bytes) -> Manifest:
    """Raises ValueError for what is none, or what an older version of Loraplex can't read."""
    manifest = msgspec.json.decode(raw, type=Manifest)
    if manifest.version > _VERSION:
        raise ValueError(f"version {manifest.version} of manifests is unknown: upgrade Loraplex")
    for name, file in manifest.files.items():
        if not _is_part(name):
            raise ValueError(f"{name!r} is no file of a model")
        if len(file.sha256) != len(range(0, file.size_bytes, manifest.block_bytes)):
            raise ValueError(f"{name}: {len(file.sha256)} digests don't fit its size")
    return manifest
