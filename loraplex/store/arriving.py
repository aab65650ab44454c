"""A model that is on its way into its folder, in blocks; who loads it waits for the bytes it needs.

Files have their size from the beginning, so that they can be mapped. A mark lies beside them until
all is there and on the disk: of what a killed process left, the blocks that are right stay.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from loraplex.store.manifest import Manifest, digest_at
from loraplex.store.models import MARK
from loraplex.store.ranges import Damaged, Read, bring, connections

log = logging.getLogger(__name__)

Block = tuple[str, int, int, str]  # file, from …, to before …, digest


class Arriving:
    """`read` gives what reads a file of it below `url`, `tell` is called with the bytes that are
    here, `held` is closed when all is there or nothing more comes."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        url: str,
        read: Callable[[str], Read],
        tell: Callable[[int], None],
        held: ExitStack,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._url = url
        self._read = {name: read(name) for name in manifest.files}
        self._tell = tell
        self._begun = time.monotonic()
        self._counts = threading.Lock()
        self._here = self._kept = 0  # bytes; of those, how many were here before
        self._failure: BaseException | None = None
        self._files: dict[str, tuple[int, bool]] = {}  # descriptor, whether it was here before
        with held:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).touch()
            for name, file in manifest.files.items():
                known = (folder / name).exists()
                opened = held.enter_context((folder / name).open("r+b" if known else "w+b"))
                opened.truncate(file.size_bytes)
                self._files[name] = (opened.fileno(), known)
            self._pool = ThreadPoolExecutor(connections(), "arriving")
            first, then = _in_order(manifest)
            self._blocks = {
                (name, start): self._pool.submit(self._bring, name, start, end, digest)
                for name, start, end, digest in first + then
            }
            self._held = held.pop_all()
        self._first = [self._blocks[name, start] for name, start, _, _ in first]
        self._settler = threading.Thread(target=self._settle, name="arrived", daemon=True)
        self._settler.start()

    def wait_beginning(self) -> None:
        """All but the weights, and of these what tells where each tensor is. Raises as `wait`."""
        self._wait(self._first)

    def wait(self, file: Path, start: int, end: int) -> None:
        """For these bytes of a file of the folder. Raises OSError, and what `tell` raised."""
        size = self._manifest.block_bytes
        starts = range(start - start % size, end, size)
        self._wait([self._blocks[file.name, each] for each in starts])

    def wait_all(self) -> None:
        """Raises as `wait`."""
        self._wait(list(self._blocks.values()))

    def finish(self) -> None:
        """Wait until it is on the disk. Raises as `wait`; who is interrupted fetches no more."""
        try:
            self.settled()
        except BaseException:
            self.cancel()
            raise

    def settled(self) -> None:
        """Wait until nothing more comes, and all is on the disk. Raises as `wait`."""
        self._settler.join()
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """Nobody needs the rest just now. Returns when nothing more comes."""
        self._pool.shutdown(cancel_futures=True)
        self._settler.join()

    def _wait(self, blocks: list[Future[None]]) -> None:
        try:
            for block in blocks:
                block.result()
        except CancelledError:
            self.settled()  # tells why
            raise

    def _bring(self, name: str, start: int, end: int, digest: str) -> None:
        descriptor, known = self._files[name]
        kept = known and digest_at(descriptor, start, end) == digest
        try:
            if not kept:
                bring(self._read[name], descriptor, start, end, digest)
        except Damaged as damaged:
            remedy = "Remove the object: it is stored again within the hour."
            raise Damaged(f"{self._url}/{name}: {damaged}. {remedy}") from damaged
        with self._counts:
            self._here += end - start
            self._kept += kept * (end - start)
            here = self._here
        self._tell(here)

    def _settle(self) -> None:
        try:
            for block in self._blocks.values():
                block.result()
            seconds = time.monotonic() - self._begun
            for descriptor, _ in self._files.values():
                os.fsync(descriptor)
            (self._folder / MARK).unlink()
            log.info(
                "%s: %.2f GiB in %.1f s, %.2f were here",
                *(self._folder.name, self._here / 2**30, seconds, self._kept / 2**30),
            )
        except (Exception, CancelledError) as failed:  # told to who waits
            log.info("%s: %.2f GiB came: %s", self._folder.name, self._here / 2**30, failed)
            self._failure = failed
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._held.close()


def _in_order(manifest: Manifest) -> tuple[list[Block], list[Block]]:
    """What is needed before anything can be done; weights, in the order of their files."""
    first, then = list[Block](), list[Block]()
    for name in manifest.files:
        for number, block in enumerate(manifest.blocks(name)):
            head = number == 0 or not name.endswith(".safetensors")
            (first if head else then).append((name, *block))
    return first, then
