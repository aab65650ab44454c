"""Users' files (batches, training data): one file each in a folder, named by its id."""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_ID = re.compile(r"file-[a-z0-9]{6,64}")
_BLOCK = 2**16


def blocks_of(file: BinaryIO) -> Iterator[bytes]:
    """What is left of it."""
    while block := file.read(_BLOCK):
        yield block


class FileStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, file_id: str) -> Path:
        """Raises ValueError for what is no id."""
        if not _ID.fullmatch(file_id):
            raise ValueError(f"{file_id!r} is no id of a file")
        return self._root / file_id

    def put(self, file_id: str, content: Iterable[bytes]) -> int:
        """Store it whole or not at all: bytes."""
        path = self.path(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{secrets.token_hex(4)}.part")  # others may write the same
        try:
            with partial.open("wb") as file:
                for block in content:
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def blocks(self, file_id: str) -> Iterator[bytes]:
        with self.path(file_id).open("rb") as file:
            yield from blocks_of(file)

    def delete(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)
