"""Who uses a base model's folder holds a lock beside it until its process ends; who makes room
leaves what is held."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from loraplex.locked import is_held, is_locked

_HELD: list[IO[str]] = []  # until this process ends


def hold(folder: Path) -> None:
    """Before it is looked for: whoever removes it just now is waited for. Where nothing can be
    written, nobody shares it with who makes room."""
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = _lock_of(folder).open("a")
        _HELD.append(file)
        fcntl.flock(file, fcntl.LOCK_SH)


def is_used(folder: Path) -> bool:
    return is_held(_lock_of(folder))


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """False: somebody uses it. True: nobody does until the end of the block."""
    with _lock_of(folder).open("a") as file:
        yield is_locked(file.fileno())


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.use")
