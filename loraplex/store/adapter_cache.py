"""Adapters from a store that is far away, kept on this machine's disk under a quota.

The replicas of a machine share the folder. A copy is looked up, marked as used and removed under
one lock; copying happens outside of it. Who has been told a copy's folder has `_KEPT_S` to read it,
so the quota can be exceeded for that long.
"""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loraplex.store.adapters import digest_of
from loraplex.store.peft_checks import CONFIG, WEIGHTS, AdapterInvalid

_KEPT_S = 60.0
_UNFINISHED = "fetching-"


class AdapterCache:
    """Folders under `root`, named by digest, as `AdapterStore` has them."""

    def __init__(self, store: Callable[[str], Path], root: Path, quota_bytes: int) -> None:
        """`store`: the folder of an adapter, by its digest, wherever it lies."""
        self._store = store
        self._root = root
        self._quota = quota_bytes
        root.mkdir(parents=True, exist_ok=True)

    def folder(self, digest: str) -> Path:
        """The local copy, fetched if need be. Raises AdapterInvalid for one that was damaged on
        its way, OSError when the store doesn't have it or the disk is full."""
        source, copy = self._store(digest), self._root / digest
        if self._use(copy):
            return copy
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=self._root) as scratch:
            fresh = Path(scratch) / digest
            fresh.mkdir()
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(source / name, fresh / name)
            if digest_of((fresh / CONFIG).read_bytes(), (fresh / WEIGHTS).read_bytes()) != digest:
                raise AdapterInvalid(f"The files of adapter {digest[:12]} don't match its digest.")
            with self._lock():
                with suppress(OSError):  # another replica was faster
                    fresh.rename(copy)
                self._make_room(scratch=Path(scratch))
        if not self._use(copy):
            raise OSError(f"adapter {digest[:12]} could not be kept in {self._root}")
        return copy

    def _use(self, copy: Path) -> bool:
        with self._lock():
            if not copy.exists():
                return False
            (copy / WEIGHTS).touch()
            return True

    def _make_room(self, scratch: Path) -> None:
        """Remove the least recently used copies beyond the quota."""
        used = []
        for each in self._root.iterdir():
            weights = each / WEIGHTS
            if not each.name.startswith(_UNFINISHED) and weights.exists():
                facts = weights.stat()
                used.append((facts.st_mtime, facts.st_size, each))
        excess = sum(size for _, size, _ in used) - self._quota
        for at, size, each in sorted(used):
            if excess <= 0 or time.time() - at < _KEPT_S:
                return
            each.rename(scratch / f"old-{each.name}")  # removed with it
            excess -= size

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self._root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
