"""Adapters in an object store (S3, or a folder that all mount), by digest: for many machines.

`PREFIX/DIGEST/…` are PEFT's two files; the config is written last, so that where it is, all is.
"""

import time
from collections.abc import Callable
from functools import cached_property, wraps
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar

from loraplex.settings import Settings
from loraplex.store.adapter_folders import is_digest
from loraplex.store.bucket import Bucket
from loraplex.store.peft_checks import CONFIG, WEIGHTS
from loraplex.store.ranges import bring_all

_REMOVED = "removed"  # folder of what is about to be deleted


P = ParamSpec("P")
T = TypeVar("T")


def _told(call: Callable[P, T]) -> Callable[P, T]:
    """S3's clients have errors of their own for a store that can't be reached."""

    @wraps(call)
    def told(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return call(*arguments, **options)
        except OSError:
            raise
        except Exception as failed:
            raise OSError(f"the store of adapters: {failed}") from failed

    return told


class RemoteAdapters:
    """All raise OSError where the store can't be reached."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._bucket = Bucket(url)  # fetches

    @cached_property
    def _store(self) -> tuple[Any, str]:
        import fsspec

        options = {"skip_instance_cache": True, "use_listings_cache": False}
        if self._url.startswith("file:"):
            options["auto_mkdir"] = True
        filesystem, root = fsspec.core.url_to_fs(self._url, **options)
        return filesystem, root.rstrip("/")

    @_told
    def has(self, digest: str) -> bool:
        filesystem, root = self._store
        return bool(filesystem.exists(f"{root}/{digest}/{CONFIG}"))

    @_told
    def put(self, digest: str, folder: Path) -> None:
        filesystem, root = self._store
        for name in (WEIGHTS, CONFIG):
            filesystem.put_file(str(folder / name), f"{root}/{digest}/{name}")

    def sizes(self, digest: str) -> dict[str, int]:
        """A copy of it is not looked at again: the store may be away."""
        return {}

    @_told
    def copy(self, digest: str, name: str, into: Path) -> None:
        """Raises FileNotFoundError."""
        with into.open("wb") as here:
            bring_all(self._bucket, f"{digest}/{name}", here.fileno())

    def folder(self, digest: str) -> Path:
        raise OSError(f"no room here for a copy of adapter {digest[:12]}")

    @_told
    def older(self, seconds: float) -> list[str]:
        """Digests that were stored so long ago, also in part."""
        filesystem, root = self._store
        before, stored = time.time() - seconds, dict[str, float]()
        for path, facts in filesystem.find(root, detail=True).items():
            folder, _, name = path.rpartition("/")
            digest = folder.rpartition("/")[2]
            inside = folder == f"{root}/{digest}" and is_digest(digest)
            if inside and name in (CONFIG, WEIGHTS):
                stored[digest] = max(stored.get(digest, 0.0), _stored_at(facts))
        return [digest for digest, at in stored.items() if at < before]

    @_told
    def aside(self) -> list[str]:
        """Digests that somebody who died has set aside."""
        filesystem, root = self._store
        folder = f"{root}/{_REMOVED}"
        if not filesystem.exists(folder):
            return []
        found = {PurePosixPath(path).parent.name for path in filesystem.find(folder)}
        return sorted(name for name in found if is_digest(name))

    @_told
    def set_aside(self, digest: str) -> None:
        """It can't be read any more, but brought back."""
        self._move(digest, f"{_REMOVED}/{digest}", (CONFIG, WEIGHTS))

    @_told
    def bring_back(self, digest: str) -> None:
        self._move(f"{_REMOVED}/{digest}", digest, (WEIGHTS, CONFIG))

    @_told
    def delete_aside(self, digest: str) -> None:
        filesystem, root = self._store
        for name in (CONFIG, WEIGHTS):
            path = f"{root}/{_REMOVED}/{digest}/{name}"
            if filesystem.exists(path):
                filesystem.rm_file(path)

    def _move(self, source: str, target: str, names: tuple[str, ...]) -> None:
        filesystem, root = self._store
        for name in names:
            if filesystem.exists(f"{root}/{source}/{name}"):
                filesystem.cp_file(f"{root}/{source}/{name}", f"{root}/{target}/{name}")
                filesystem.rm_file(f"{root}/{source}/{name}")


def remote_of(settings: Settings) -> RemoteAdapters | None:
    """None: adapters are kept in the home folder."""
    return RemoteAdapters(settings.adapter_store) if settings.adapter_store else None


def _stored_at(facts: dict[str, Any]) -> float:
    at = facts.get("LastModified") or facts.get("mtime") or facts.get("created") or 0.0
    return float(at if isinstance(at, int | float) else at.timestamp())
