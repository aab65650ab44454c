"""Adapters of the jobs that wait, read while the model loads: from the network into the local
copies where there are such, from the disk into the system's cache."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from loraplex.broker.connection import Unavailable
from loraplex.broker.worker import WorkerBroker
from loraplex.store.adapters import AdapterInvalid

log = logging.getLogger(__name__)


class Prefetch:
    """A thread that ends by itself; whatever fails here will be met again, and told, later."""

    def __init__(self, broker: WorkerBroker, locate: Callable[[str], Path]) -> None:
        self._broker = broker
        self._locate = locate
        self.read: list[str] = []  # digests
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            adapters = self._broker.peek_adapters()
        except Unavailable as failed:
            log.info("adapters are not read ahead: %s", failed)
            return
        for adapter in adapters:
            try:
                for file in self._locate(adapter).iterdir():
                    _read_ahead(file)
            except (OSError, ValueError, AdapterInvalid) as failed:
                log.info("adapter %s is not read ahead: %s", adapter[:12], failed)
            else:
                self.read.append(adapter)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)


def _read_ahead(file: Path) -> None:
    """The system begins to read it; nobody waits, and no memory of ours is used."""
    with file.open("rb") as opened:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
