"""What a batch has got so far: two files that grow line by line, read again after a restart."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 2**16
MOST_BYTES = 2**30  # of a batch: what comes then fails


class Results:
    """A line that was torn when a process died is cut off; of lines that two processes wrote for
    the same request the first counts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._paths = {True: folder / "output.jsonl", False: folder / "errors.jsonl"}
        self.done: dict[str, bool] = {}  # custom_id → did it succeed
        self.counts: Counter[bool] = Counter()
        self.size = 0  # bytes
        for succeeded, path in self._paths.items():
            _mend(path)
            for name, raw in _lines(path):
                self._count(name, succeeded)
                self.size += len(raw)

    def add(self, line: dict[str, Any], *, succeeded: bool) -> None:
        name = line["custom_id"]
        if name in self.done:
            return
        raw = json.dumps(line).encode() + b"\n"
        with self._paths[succeeded].open("ab") as file:
            file.write(raw)
        self.size += len(raw)
        self._count(name, succeeded)

    def blocks(self, succeeded: bool) -> Iterator[bytes]:
        """Each request's line once."""
        seen: set[str] = set()
        for name, raw in _lines(self._paths[succeeded]):
            if name not in seen and self.done.get(name) == succeeded:
                seen.add(name)
                yield raw

    def remove(self) -> None:
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._folder.rmdir()

    def _count(self, name: str, succeeded: bool) -> None:
        if name not in self.done:
            self.done[name] = succeeded
            self.counts[succeeded] += 1


def _mend(path: Path) -> None:
    """Cut off what is behind the last line break."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                file.truncate(start + at + 1)
                return
            end = start
        file.truncate(0)


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """custom_id and the line."""
    if path.is_file():
        with path.open("rb") as file:
            for raw in file:
                yield json.loads(raw)["custom_id"], raw
