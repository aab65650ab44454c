"""What is being uploaded: a folder for each transfer, until it is complete or forgotten."""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from loraplex.store.adapter_folders import older

_ID = re.compile(r"move-[0-9a-f]{12}")


class Staging:
    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, transfer: str, name: str) -> Path:
        """Its folder exists then. Raises ValueError for what is no id; `name` is one of ours."""
        if not _ID.fullmatch(transfer):
            raise ValueError(f"{transfer!r} is no id of a transfer")
        folder = self._root / transfer
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def delete(self, transfer: str) -> None:
        shutil.rmtree(self.path(transfer, ""), ignore_errors=True)

    def size(self, transfer: str) -> int:
        """Bytes that are here."""
        folder = self.path(transfer, "")
        with suppress(FileNotFoundError):  # it was completed just now
            return sum(file.stat().st_size for file in folder.iterdir())
        return 0

    def forget_older(self, seconds: float) -> int:
        """Those that nobody completed: how many."""
        if not self._root.is_dir():
            return 0
        old = [folder for folder in self._root.iterdir() if older(folder, seconds)]
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        return len(old)
