"""Where adapters lie on this machine, by digest, and which of them nobody has used for long.

Needs nothing but the standard library: what looks after them needn't be able to read them.
"""

import os
import re
import shutil
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

from loraplex.locked import locked

UNFINISHED = "storing-"
_DIGEST = re.compile("[0-9a-f]{64}")


def older(path: Path, seconds: float) -> bool:
    """Than so long. False: it is gone."""
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False


def is_digest(name: str) -> bool:
    return _DIGEST.fullmatch(name) is not None


class AdapterFolders:
    """Folders under `root`, named by digest, each with PEFT's two files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, digest: str) -> Path:
        """Where an adapter lies. Raises ValueError: what is no digest could leave the store."""
        if not is_digest(digest):
            raise ValueError(f"not a digest: {digest!r}")
        return self.root / digest

    def use(self, digest: str) -> bool:
        """Somebody needs it: it isn't removed within the time that unused ones are kept. False: it
        isn't here."""
        with self._lock():
            try:
                os.utime(self.folder(digest))
            except FileNotFoundError:
                return False
            return True

    def unused(self, seconds: float) -> list[str]:
        """Digests that were neither stored nor used for so long."""
        return [
            each.name for each in self._folders() if is_digest(each.name) and older(each, seconds)
        ]

    def remove_unfinished(self, seconds: float) -> None:
        """What was being stored so long ago, by a process that has died."""
        for each in self._folders():
            if each.name.startswith(UNFINISHED) and older(each, seconds):
                shutil.rmtree(each, ignore_errors=True)

    def remove(self, digest: str, seconds: float) -> bool:
        """If it was still not used for so long. Whoever registers the same content at this moment
        has used it, or stores it anew."""
        folder = self.folder(digest)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.root) as scratch:
            with self._lock():
                if not folder.exists() or folder.stat().st_mtime > time.time() - seconds:
                    return False
                folder.rename(Path(scratch) / "removed")
            return True

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return list(self.root.iterdir())

    def _lock(self) -> AbstractContextManager[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        return locked(self.root / ".lock")
