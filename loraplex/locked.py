"""Locks of files and folders, which the kernel frees when their holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def is_locked(descriptor: int) -> bool:
    """By us now, until it is closed. False: by another one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(file: Path) -> bool:
    """By some process, just now."""
    try:
        with file.open("r") as opened:
            return not is_locked(opened.fileno())
    except FileNotFoundError:
        return False


@contextmanager
def if_free(file: Path) -> Iterator[bool]:
    """True: it is ours until the end of the block. False: another process has it."""
    with file.open("a") as opened:
        yield is_locked(opened.fileno())


def shared(file: Path) -> IO[str]:
    """Held with others until it is closed; whoever has it alone is waited for. Raises OSError."""
    opened = file.open("a")
    fcntl.flock(opened, fcntl.LOCK_SH)
    return opened


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
