"""A version's files as one: a zip with what PEFT reads; and out of one."""

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fastapi.responses import StreamingResponse

from api.errors import ApiError, bad_request
from api.state import State
from loraplex.entities import Adapter
from loraplex.store.archives import ArchiveRefused, unpack
from loraplex.store.files import blocks_of
from loraplex.store.peft_checks import CONFIG, WEIGHTS


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
    except OSError as away:
        file.close()
        message = f"The files of {version.ref!r} can't be read: {away}"
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
    with tempfile.TemporaryDirectory() as scratch:
        try:
            config, weights = unpack(archive, Path(scratch), most_bytes)
        except ArchiveRefused as refused:
            raise bad_request(str(refused), "archive", "adapter_refused") from refused
        return config.read_bytes(), weights.read_bytes()


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from blocks_of(file)
