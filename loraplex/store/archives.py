"""PEFT's two files out of a zip or tar that nobody vouches for.

Nothing is extracted by the names that it holds: exactly two members are read, up to a bound, so
that paths that lead elsewhere, links and bombs come to nothing.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_MEMBERS = 10_000
_BLOCK = 2**20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError)

_MODEL = "config.json"


class _Member(NamedTuple):
    size: int  # as the archive says
    open: Callable[[], IO[bytes] | None]


_Members = dict[str, _Member]  # regular files, by path


class ArchiveRefused(Exception):
    """The text says why."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path | IO[bytes], into: Path, most_bytes: int) -> tuple[Path, Path]:
    """Config and weights, which lie beside each other in it. Raises ArchiveRefused."""
    try:
        with _opened(archive) as members:
            folder = _folder(members)
            for name, most in ((CONFIG, MAX_CONFIG), (WEIGHTS, most_bytes)):
                _copy(members, str(folder / name), into / name, most)
    except _BROKEN as broken:
        raise ArchiveRefused(f"The archive can't be read: {broken}") from broken
    return into / CONFIG, into / WEIGHTS


def unpack_all(
    archive: Path, into: Path, wanted: Callable[[str], bool], make_room: Callable[[int], None]
) -> None:
    """The wanted files of the one folder that has a `config.json`, by their last names. `make_room`
    is told their bytes. Raises ArchiveRefused."""
    try:
        with _opened(archive) as members:
            folders = {str(PurePosixPath(name).parent) for name in members if _last(name) == _MODEL}
            if len(folders) != 1:
                raise ArchiveRefused(f"It has {len(folders)} folders with {_MODEL}; one is wanted.")
            names = [
                name
                for name in members
                if str(PurePosixPath(name).parent) in folders and wanted(_last(name))
            ]
            sizes = {name: members[name].size for name in names}
            make_room(sum(sizes.values()))
            for name in names:
                _copy(members, name, into / _last(name), sizes[name])
    except _BROKEN as broken:
        raise ArchiveRefused(f"The archive can't be read: {broken}") from broken


def _last(name: str) -> str:
    return PurePosixPath(name).name


@contextmanager
def _opened(archive: Path | IO[bytes]) -> Iterator[_Members]:
    """zipfile and tarfile read headers alone; a compressed tar must be read through for them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            found = [each for each in zipped.infolist()[:_MOST_MEMBERS] if not each.is_dir()]
            yield {e.filename: _Member(e.file_size, partial(zipped.open, e)) for e in found}
        return
    given = {"name": archive} if isinstance(archive, Path) else {"fileobj": archive}
    if not isinstance(archive, Path):
        archive.seek(0)
    with tarfile.open(**given) as tarred:
        members: _Members = {}
        for number, each in enumerate(tarred):
            if number >= _MOST_MEMBERS:
                break
            if each.isreg():
                members[each.name] = _Member(each.size, partial(tarred.extractfile, each))
        yield members


def _folder(members: _Members) -> PurePosixPath:
    """Where both files are."""
    found = {
        path.parent
        for path in map(PurePosixPath, members)
        if path.name == CONFIG and str(path.parent / WEIGHTS) in members
    }
    if not found:
        raise ArchiveRefused(f"It has no folder with {CONFIG} and {WEIGHTS}.")
    if len(found) > 1:
        raise ArchiveRefused(f"It has several adapters: {', '.join(sorted(map(str, found)))[:200]}")
    return found.pop()


def _copy(members: _Members, name: str, into: Path, most: int) -> None:
    opened = members[name].open()
    assert opened is not None, "regular files alone are members"
    with opened as source, into.open("wb") as target:
        left = most
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ArchiveRefused(f"{PurePosixPath(name).name} has over {most} bytes.")
            target.write(block)
