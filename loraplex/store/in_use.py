"""Who uses a base model's folder holds a lock beside it until its process ends; who makes room
leaves what is held."""

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

from loraplex.locked import if_free, is_held, shared

_HELD: list[IO[str]] = []  # until this process ends


def hold(folder: Path) -> None:
    """Before it is looked for: whoever removes it just now is waited for. Where nothing can be
    written, nobody shares it with who makes room."""
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _HELD.append(shared(_lock_of(folder)))


def is_used(folder: Path) -> bool:
    return is_held(_lock_of(folder))


def unused(folder: Path) -> AbstractContextManager[bool]:
    """False: somebody uses it. True: nobody does until the end of the block."""
    return if_free(_lock_of(folder))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.use")
