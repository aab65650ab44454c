"""A version's files as one: a zip with what PEFT reads."""

import os
import tempfile
import zipfile
from pathlib import Path

from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from api.errors import ApiError
from api.state import State
from loraplex.entities import Adapter
from loraplex.store.peft_checks import CONFIG, WEIGHTS


def as_zip(state: State, version: Adapter) -> FileResponse:
    """Raises ApiError 404 when its files were removed meanwhile."""
    folder = state.adapters.folder(version.digest)
    handle, path = tempfile.mkstemp(suffix=".zip")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name in (CONFIG, WEIGHTS):  # weights don't shrink: stored as they are
                archive.write(folder / name, name)
    except FileNotFoundError as gone:
        Path(path).unlink()
        raise ApiError(404, "not_found", f"The files of {version.ref!r} are gone.") from gone
    except BaseException:
        Path(path).unlink()
        raise
    return FileResponse(
        path,
        media_type="application/zip",
        filename=f"{version.repo}-{version.version}.zip",
        background=BackgroundTask(os.unlink, path),
    )
