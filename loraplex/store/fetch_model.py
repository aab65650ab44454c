"""A base model from S3, a folder of the server, or an archive of one, into a folder here; goes on
where it was left. Those of the hub are fetched when a deployment names them (`models.py`)."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from loraplex.first_line import first_line
from loraplex.store.archives import ArchiveRefused, is_archive, unpack_all
from loraplex.store.models import MakeRoom, ModelUnavailable, Stopped, Tell, is_model_file
from loraplex.store.resumed import FetchFailed, append, s3, s3_blocks
from loraplex.store.sources import Source, SourceKind

_ARCHIVE = "archive"


def fetch_model(name: str, source: Source, into: Path, make_room: MakeRoom, tell: Tell) -> Path:
    """Its folder, below `into`. Raises FetchFailed, ModelUnavailable, Stopped."""
    folder = into / "model"
    folder.mkdir(parents=True, exist_ok=True)
    ways = {SourceKind.S3: _from_s3, SourceKind.LOCAL: _from_folder}
    if source.kind not in ways:
        raise FetchFailed("Base models of the hub are fetched when a deployment names them.")
    try:
        ways[source.kind](source, folder, partial(make_room, name), tell)
        if is_archive(source.name):
            tell(f"unpacking {source}", None)
            unpack_all(folder / _ARCHIVE, folder, is_model_file, partial(make_room, name))
            (folder / _ARCHIVE).unlink()
    except (FetchFailed, ModelUnavailable, Stopped):
        raise
    except ArchiveRefused as refused:
        raise FetchFailed(str(refused)) from refused
    except Exception as failed:  # of S3, of the disk
        raise FetchFailed(f"could not be fetched: {first_line(failed)}") from failed
    for mark in folder.glob("*.etag"):  # of what was begun
        mark.unlink()
    return folder


def _from_s3(source: Source, folder: Path, make_room: Callable[[int], None], tell: Tell) -> None:
    remote = s3()
    named = source.name.removeprefix("s3://")
    if is_archive(named):
        found = {_ARCHIVE: remote.info(named)}
    else:
        listed = remote.ls(named, detail=True)
        found = {PurePosixPath(each["name"]).name: each for each in listed}
        found = {name: each for name, each in found.items() if is_model_file(name)}
    make_room(sum(int(each["size"]) for each in found.values()))
    for name, each in found.items():
        blocks = partial(s3_blocks, remote, each["name"])
        append(blocks, folder / name, int(each["size"]), str(each["ETag"]), source, tell)


def _from_folder(
    source: Source, folder: Path, make_room: Callable[[int], None], tell: Tell
) -> None:
    there = Path(source.name)
    files = [there] if is_archive(source.name) else [f for f in there.iterdir() if f.is_file()]
    wanted = [file for file in files if is_archive(file.name) or is_model_file(file.name)]
    make_room(sum(file.stat().st_size for file in wanted))
    for file in wanted:
        tell(f"copying {file.name}", None)
        shutil.copyfile(file, folder / (_ARCHIVE if is_archive(source.name) else file.name))
