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
from typing import IO

from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_MEMBERS = 10_000
_BLOCK = 2**20
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError)

_Members = dict[str, Callable[[], IO[bytes] | None]]  # files by path, and how each is opened


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


@contextmanager
def _opened(archive: Path | IO[bytes]) -> Iterator[_Members]:
    """zipfile and tarfile read headers alone; a compressed tar must be read through for them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            found = [each for each in zipped.infolist()[:_MOST_MEMBERS] if not each.is_dir()]
            yield {each.filename: partial(zipped.open, each) for each in found}
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
                members[each.name] = partial(tarred.extractfile, each)
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
    opened = members[name]()
    assert opened is not None, "regular files alone are members"
    with opened as source, into.open("wb") as target:
        left = most
        while block := source.read(min(_BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ArchiveRefused(f"{PurePosixPath(name).name} has over {most} bytes.")
            target.write(block)
