"""One large object as many ranges at once: S3 gives about 85 MB/s a connection, a machine's network
takes more (AWS, "Performance design patterns for Amazon S3")."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from loraplex.store.bucket import Bucket

BLOCK = 8 * 2**20
_PART = 4 * 2**20  # of an object that is small enough for its last range to be waited for
_TRIES = 3

Read = Callable[[int, int], memoryview]  # bytes from … to before …


class Damaged(OSError):
    """What came isn't what was stored."""


def connections() -> int:
    """At once. A machine with more cores has a faster network."""
    return min(64, max(32, 4 * (os.cpu_count() or 1)))


def bring(read: Read, descriptor: int, start: int, end: int, digest: str | None = None) -> None:
    """Write these bytes to their place in a file. `digest`: their SHA-256. Raises OSError."""
    for left in reversed(range(_TRIES)):
        try:
            content = read(start, end)
            if digest is not None and hashlib.sha256(content).hexdigest() != digest:
                raise Damaged(f"bytes {start} to {end} aren't what was stored")
        except FileNotFoundError:
            raise
        except OSError:
            if not left:
                raise
        else:
            write_at(descriptor, content, start)
            return


def write_at(descriptor: int, content: memoryview, start: int) -> None:
    """All of it: a disk that fills up takes a part, and refuses the rest. Raises OSError."""
    while content:
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written


def bring_all(bucket: Bucket, path: str, descriptor: int) -> None:
    """A whole object into a file. Raises OSError."""
    beginning, size = bucket.read_first(path, _PART)
    write_at(descriptor, beginning, 0)
    starts = range(_PART, size, _PART)
    if not starts:
        return
    read = partial(bucket.read, path)
    pool = ThreadPoolExecutor(min(connections(), len(starts)), "range")
    try:
        parts = [
            pool.submit(bring, read, descriptor, start, min(start + _PART, size))
            for start in starts
        ]
        for part in parts:
            part.result()
    finally:
        pool.shutdown(cancel_futures=True)
