"""Base models of a bucket on this machine's disk, a folder for each content: the machine's replicas
share them, and the least lately used ones make room for others."""

import logging
from contextlib import ExitStack
from pathlib import Path

from loraplex.locked import locked
from loraplex.store.arriving import Arriving
from loraplex.store.in_use import hold
from loraplex.store.model_bucket import ModelBucket
from loraplex.store.model_room import ModelRoom
from loraplex.store.models import ModelUnavailable, folder_name, is_whole, touch

log = logging.getLogger(__name__)


class NotStored(OSError):
    """The bucket hasn't it."""


class ModelCopies:
    def __init__(self, root: Path, bucket: ModelBucket, quota_bytes: int | None) -> None:
        self._root = root
        self._bucket = bucket
        self._room = ModelRoom(root, quota_bytes, set)

    def begin(self, name: str) -> tuple[Path, Arriving | None]:
        """The model's folder, this process' own until it ends; not None: it is on its way there.
        Another process that fetches it is waited for. Raises NotStored, OSError."""
        try:
            manifest = self._bucket.manifest(name)
        except OSError as away:
            if (folder := self._latest(name)) is None:
                raise
            log.warning("the copy that is here is used: %s", away)
            return folder, None
        if manifest is None:
            raise NotStored(f"Base model {name!r} isn't in {self._bucket}.")
        copy = f"{name}@{manifest.digest[:12]}"
        folder = self._root / folder_name(copy)
        hold(folder)
        with ExitStack() as held:
            held.enter_context(locked(self._root / f".{folder.name}.lock"))
            if is_whole(folder) and manifest.fits(folder):
                touch(folder)
                return folder, None
            self._make_room(copy, manifest.size_bytes)
            rest = held.pop_all()
            arriving = self._bucket.begin(name, manifest, folder, lambda doing, share: None, rest)
        return folder, arriving

    def _make_room(self, name: str, size_bytes: int) -> None:
        try:
            self._room.make(name, size_bytes)
        except ModelUnavailable as full:  # who uses the others may end
            raise OSError(str(full)) from full

    def _latest(self, name: str) -> Path | None:
        copies = [each for each in self._root.glob(f"{folder_name(name)}@*") if is_whole(each)]
        if not copies:
            return None
        folder = max(copies, key=lambda each: each.stat().st_mtime)
        hold(folder)
        return folder if is_whole(folder) else None
