"""A version's files as one: a zip with what PEFT reads; and out of one."""

import logging
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fastapi.responses import StreamingResponse

from api.errors import ApiError, bad_request
from api.state import State
from loraplex.entities import Adapter
from loraplex.store.archives import ArchiveRefused, unpack
from loraplex.store.files import blocks_of
from loraplex.store.peft_checks import CONFIG, WEIGHTS, AdapterInvalid

log = logging.getLogger(__name__)


_UNPACK_WAIT_S = 5.0
_unpacking = threading.BoundedSemaphore(2)  # each may take a gigabyte for a minute


@contextmanager
def _released() -> Iterator[None]:
    try:
        yield
    finally:
        _unpacking.release()


def as_zip(state: State, version: Adapter) -> StreamingResponse:
    """Raises ApiError 404 when its files were removed meanwhile."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (has no name: gone with whoever reads it)
    try:
        folder = state.adapters.locate(version.digest)
        with zipfile.ZipFile(file, "w") as archive:
            for name in (CONFIG, WEIGHTS):  # weights don't shrink: stored as they are
                archive.write(folder / name, name)
    except FileNotFoundError as gone:
        file.close()
        raise ApiError(404, "not_found", f"The files of {version.ref!r} are gone.") from gone
    except (OSError, AdapterInvalid) as away:
        file.close()
        log.warning("the files of %s can't be read: %s", version.ref, away)
        message = f"The files of {version.ref!r} can't be read just now."
        raise ApiError(503, "storage_unavailable", message, retry_after_s=10) from away
    size = file.tell()
    file.seek(0)
    name = f"{version.repo}-{version.tag}.zip"
    headers = {
        "content-length": str(size),
        "content-disposition": f'attachment; filename="{name}"',
    }
    return StreamingResponse(
        _blocks(cast(BinaryIO, file)), media_type="application/zip", headers=headers
    )


def read_zip_or_tar(archive: BinaryIO, most_bytes: int) -> tuple[bytes, bytes]:
    """Config and weights. Raises ApiError 400."""
    if not _unpacking.acquire(timeout=_UNPACK_WAIT_S):
        message = "Others' archives are being read. Try again."
        raise ApiError(503, "busy", message, retry_after_s=5)
    with _released(), tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "archive"
        try:
            with file.open("wb") as copy:
                shutil.copyfileobj(archive, copy)
            config, weights = unpack(file, Path(scratch), most_bytes)
        except ArchiveRefused as refused:
            raise bad_request(str(refused), "archive", "adapter_refused") from refused
        return config.read_bytes(), weights.read_bytes()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from blocks_of(file)
