"""Files from far away that are gone on with where an earlier try ended."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from loraplex.store.models import Tell
from loraplex.store.sources import Source

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0
_BLOCK = 2**20
_TRIES = 5
_SHA256 = re.compile("[0-9a-f]{64}")


class FetchFailed(Exception):
    """The text says why, for who asked for it."""


def s3() -> Any:
    """By the server's own credentials, as boto3 finds them; AWS_ENDPOINT_URL names another S3."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


def http_blocks(url: str, headers: dict[str, str], start: int) -> Iterator[bytes]:
    """httpx keeps the token from the host that a redirect leads to."""
    ranged = headers | {"range": f"bytes={start}-"}
    with httpx.stream(
        "GET", url, headers=ranged, follow_redirects=True, timeout=TIMEOUT_S
    ) as response:
        response.raise_for_status()
        if start and response.status_code != httpx.codes.PARTIAL_CONTENT:
            raise FetchFailed("the server doesn't go on in the middle of a file")
        yield from response.iter_bytes(_BLOCK)


def s3_blocks(remote: Any, path: str, start: int) -> Iterator[bytes]:
    with remote.open(path, "rb", cache_type="none") as there:
        there.seek(start)
        while block := there.read(_BLOCK):
            yield block


def append(
    blocks_from: Callable[[int], Iterator[bytes]],
    path: Path,
    size: int,
    etag: str,
    source: Source,
    tell: Tell,
) -> None:
    """Go on where an earlier try ended, if it was of the same content."""
    mark = path.with_suffix(".etag")
    if not mark.exists() or mark.read_text() != etag:
        path.unlink(missing_ok=True)
        mark.write_text(etag)
    with path.open("ab") as here:
        for _ in range(_TRIES):
            try:
                for block in blocks_from(here.tell()) if here.tell() < size else ():
                    tell(f"fetching {source}: {path.name}", here.tell() / size)
                    here.write(block[: size - here.tell()])
            except httpx.TransportError as broken:
                log.info("%s at byte %d: %s", source, here.tell(), broken)
            if here.tell() >= size:
                here.flush()
                _check_content(path, etag)
                return
    raise FetchFailed(f"{path.name} broke off again and again.")


def _check_content(path: Path, etag: str) -> None:
    """A hub's ETag of a large file is its SHA-256."""
    if not _SHA256.fullmatch(etag):
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != etag:
        path.unlink()
        raise FetchFailed(f"{path.name} was damaged on its way. Try again.")
