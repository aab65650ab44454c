"""Models that are put together before anybody asks, in the process that replicas are forked from.

Building transformers' modules takes as long as a short prefill. Their weights are the checkpoint's
own pages, mapped, which the system's cache holds anyway: a model that is kept here costs its
modules alone, and a fork of this process shares them until it writes, which nobody does.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

MOST_MODELS = 8
MOST_COPIED = 64 * 2**20  # bytes: more means that its weights were converted, not mapped

Identity = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Kept:
    identity: Identity
    dtype: torch.dtype
    model: Any


class Assembled:
    """By folder, as its files were then."""

    def __init__(self) -> None:
        self._kept: dict[Path, _Kept] = {}
        self._tried: dict[Path, Identity] = {}

    def missing(self, folder: Path) -> bool:
        """Nobody has tried it, or its files are others now."""
        return self._tried.get(folder.resolve()) != identity(folder)

    def keep(self, folder: Path, assemble: Callable[[], Any]) -> None:
        """Assemble it and keep it, if its weights are mapped. One thread, no computation."""
        folder = folder.resolve()
        self._tried[folder] = files = identity(folder)
        self._kept.pop(folder, None)
        if sum(size for _, _, size, _ in files) > _free_bytes():
            log.info("%s: larger than the memory that is free: not assembled ahead", folder)
            return
        before, threads = _anonymous_bytes(), torch.get_num_threads()
        torch.set_num_threads(1)  # a pool of threads would not survive the fork
        try:
            model = assemble()
        except Exception as unknown:  # a replica will refuse it, with the reason
            log.info("%s: not assembled ahead: %s", folder, unknown)
            return
        finally:
            torch.set_num_threads(threads)
        copied = _anonymous_bytes() - before
        if copied > MOST_COPIED:
            log.info("%s: its weights are converted (%d MiB): not kept", folder, copied >> 20)
            return
        while len(self._kept) >= MOST_MODELS:
            oldest = next(iter(self._kept))
            del self._kept[oldest], self._tried[oldest]
        self._kept[folder] = _Kept(files, next(model.parameters()).dtype, model)

    def take(self, folder: Path, dtype: torch.dtype) -> Any | None:
        """The model, for its one user in this process; None: put it together."""
        kept = self._kept.pop(folder.resolve(), None)
        if kept is None or kept.dtype != dtype or kept.identity != identity(folder):
            return None
        return kept.model

    def forget_gone(self) -> None:
        """What was deleted, or is another now, holds its files no longer."""
        for folder, kept in list(self._kept.items()):
            if kept.identity != identity(folder):
                del self._kept[folder]


ASSEMBLED = Assembled()


def identity(folder: Path) -> Identity:
    """Other files, other identity; empty when the folder is gone."""
    found: list[tuple[str, int, int, int]] = []
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            stat = file.stat()
            found.append((file.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _anonymous_bytes() -> int:
    """Of this process' memory, what no file backs; 0 where the system doesn't tell."""
    return _told("/proc/self/status", "RssAnon:")


def _free_bytes() -> int:
    """If a model must be converted after all, its copy needs room for a moment."""
    return _told("/proc/meminfo", "MemAvailable:")


def _told(file: str, name: str) -> int:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return 0
