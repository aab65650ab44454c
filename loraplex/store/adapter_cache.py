"""Adapters from a store that is far away, kept on this machine's disk under a quota.

The replicas of a machine share the folder. A copy is looked up, marked as used and removed under
one lock; copying happens outside of it. Who has been told a copy's folder has `_KEPT_S` to read it,
so the quota can be exceeded for that long. When the disk is full the store itself is read.
"""

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from loraplex.locked import locked
from loraplex.store.adapter_folders import older
from loraplex.store.adapters import digest_of
from loraplex.store.peft_checks import CONFIG, WEIGHTS, AdapterInvalid

log = logging.getLogger(__name__)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_KEPT_S = 60.0
_UNFINISHED = "fetching-"
_ABANDONED_S = 3600.0  # a fetch that takes longer belongs to a replica that was killed


class Source(Protocol):
    """Where adapters lie. All raise OSError where it doesn't have one, or is away."""

    def sizes(self, digest: str) -> Mapping[str, int]:
        """Of its files: a copy of others is damaged. Empty: a copy is believed."""

    def copy(self, digest: str, name: str, into: Path) -> None: ...
    def folder(self, digest: str) -> Path:
        """To be read as it is, where there is no room for a copy."""


class Folders:
    """On a disk that is far away, as `locate` finds them."""

    def __init__(self, locate: Callable[[str], Path]) -> None:
        self.folder = locate

    def sizes(self, digest: str) -> Mapping[str, int]:
        return {name: (self.folder(digest) / name).stat().st_size for name in (CONFIG, WEIGHTS)}

    def copy(self, digest: str, name: str, into: Path) -> None:
        shutil.copyfile(self.folder(digest) / name, into)


class AdapterCache:
    """Folders under `root`, named by digest, as `AdapterStore` has them."""

    def __init__(self, source: Source, root: Path, quota_bytes: int) -> None:
        self._source = source
        self._root = root
        self._quota = quota_bytes
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, digest: str) -> Path:
        """The local copy, fetched if need be; the store's own folder when there is no room for one.

        Raises AdapterInvalid for an adapter that was damaged on its way, OSError when the store
        doesn't have it.
        """
        sizes, copy = self._source.sizes(digest), self._root / digest
        with self._lock():
            if _use(copy, sizes):
                return copy
        try:
            with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._root) as scratch:
                fresh = Path(scratch) / digest
                fresh.mkdir()
                for name in (CONFIG, WEIGHTS):
                    self._source.copy(digest, name, fresh / name)
                    _to_disk(fresh / name)
                if digest_of(fresh / CONFIG, fresh / WEIGHTS) != digest:
                    reason = f"The files of adapter {digest[:12]} don't match its digest."
                    raise AdapterInvalid(reason)
                with self._lock():
                    if not _use(copy, sizes):  # else another replica was faster
                        if copy.exists():
                            copy.rename(Path(scratch) / "damaged")
                        fresh.rename(copy)
                        _use(copy, sizes)
                    self._make_room(Path(scratch))
                return copy
        except OSError as full:
            if full.errno not in _NO_ROOM:  # the store hasn't it, or is away
                raise
            log.warning("no local copy of adapter %s: %s", digest[:12], full)
            return self._source.folder(digest)

    def _make_room(self, scratch: Path) -> None:
        """Remove the least recently used copies beyond the quota, and what the killed left."""
        used = []
        for each in self._root.iterdir():
            if each.name.startswith(_UNFINISHED):
                if older(each, _ABANDONED_S):
                    each.rename(scratch / f"old-{each.name}")  # removed with it
            elif each.is_dir():
                files = {file.name: file.stat() for file in each.iterdir()}
                used_at = files[WEIGHTS].st_mtime if WEIGHTS in files else 0.0
                used.append((used_at, sum(file.st_size for file in files.values()), each))
        excess = sum(size for _, size, _ in used) - self._quota
        for at, size, each in sorted(used):
            if excess <= 0 or time.time() - at < _KEPT_S:
                return
            each.rename(scratch / f"old-{each.name}")
            excess -= size

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self._root / ".lock")


def _use(copy: Path, sizes: Mapping[str, int]) -> bool:
    """Mark a copy as used now. False: there is none that is whole."""
    try:
        whole = all((copy / name).stat().st_size == size for name, size in sizes.items())
        if whole:
            os.utime(copy / WEIGHTS)
    except FileNotFoundError:
        return False
    return whole


def _to_disk(file: Path) -> None:
    """A power cut must not leave a file of the right size without its content."""
    with file.open("rb") as written:
        os.fsync(written.fileno())
