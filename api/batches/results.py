"""What a batch has got so far: two files that grow line by line, read again after a restart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Results:
    """A line that was torn when a process died is cut off; of lines that two processes wrote for
    the same request the first counts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = {True: folder / "output.jsonl", False: folder / "errors.jsonl"}
        self.done: dict[str, bool] = {}  # custom_id → did it succeed
        for succeeded, path in self._paths.items():
            self._mend(path)
            for line in self._lines(path):
                self.done.setdefault(line["custom_id"], succeeded)

    def add(self, line: dict[str, Any], *, succeeded: bool) -> None:
        if line["custom_id"] in self.done:
            return
        with self._paths[succeeded].open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
        self.done[line["custom_id"]] = succeeded

    def count(self, succeeded: bool) -> int:
        return sum(each == succeeded for each in self.done.values())

    def blocks(self, succeeded: bool) -> Iterator[bytes]:
        """Each request's line once."""
        seen: set[str] = set()
        for line in self._lines(self._paths[succeeded]):
            name = line["custom_id"]
            if name not in seen and self.done.get(name) == succeeded:
                seen.add(name)
                yield json.dumps(line).encode() + b"\n"

    def remove(self) -> None:
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._paths[True].parent.rmdir()

    @staticmethod
    def _mend(path: Path) -> None:
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)

    @staticmethod
    def _lines(path: Path) -> Iterator[dict[str, Any]]:
        if path.is_file():
            with path.open("rb") as file:
                for line in file:
                    yield json.loads(line)
