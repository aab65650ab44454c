"""PEFT's two files, or a base model's, out of a zip or tar that nobody vouches for.

Nothing is extracted by the names that it holds: the members that are wanted are read, up to a
bound, so that paths that lead elsewhere and links come to nothing. Users' archives are read by a
process of its own, under limits: a few bytes can unpack to terabytes, and to gigabytes of headers.
"""

import errno
import lzma
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from loraplex.first_line import first_line
from loraplex.store.peft_checks import CONFIG, MAX_CONFIG, WEIGHTS

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_MOST_MEMBERS = 10_000
_BLOCK = 2**20
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError, NotImplementedError, MemoryError),
)
_MOST_MEMORY = 2**30
_MOST_CPU_S = 60
_REFUSED = 3  # exit status; the reason is what it says

_MODEL = "config.json"


class _Member(NamedTuple):
    size: int  # as the archive says
    open: Callable[[], IO[bytes] | None]


_Members = dict[str, _Member]  # regular files, by path


class ArchiveRefused(Exception):
    """The text says why."""


def is_archive(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, most_bytes: int) -> tuple[Path, Path]:
    """Config and weights, which lie beside each other in it. Raises ArchiveRefused."""
    command = [sys.executable, "-m", "loraplex.store.archives"]
    done = subprocess.run(
        [*command, str(archive), str(into), str(most_bytes)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _REFUSED:
        raise ArchiveRefused(done.stdout.strip())
    if done.returncode != 0:  # by a limit, or a defect of what reads it
        raise ArchiveRefused("The archive can't be read within the memory and time that one has.")
    return into / CONFIG, into / WEIGHTS


def _unpack(archive: Path, into: Path, most_bytes: int) -> None:
    try:
        with _opened(archive) as members:
            folder = _folder(members)
            for name, most in ((CONFIG, MAX_CONFIG), (WEIGHTS, most_bytes)):
                _copy(members, str(folder / name), into / name, most)
    except _BROKEN as broken:
        raise _broken(broken) from broken


def _broken(reason: BaseException) -> ArchiveRefused:
    """Raises OSError where the disk is full: that is nothing of the archive's."""
    if isinstance(reason, OSError) and reason.errno in (errno.ENOSPC, errno.EDQUOT):
        raise reason
    return ArchiveRefused(f"The archive can't be read: {first_line(reason)}")


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
        raise _broken(broken) from broken


def _path(name: str) -> str:
    """`./a` is `a`."""
    return str(PurePosixPath(name))


def _last(name: str) -> str:
    return PurePosixPath(name).name


@contextmanager
def _opened(archive: Path) -> Iterator[_Members]:
    """zipfile and tarfile read headers alone; a compressed tar must be read through for them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            _check_count(len(zipped.infolist()))
            found = [each for each in zipped.infolist() if not each.is_dir()]
            yield {_path(e.filename): _Member(e.file_size, partial(zipped.open, e)) for e in found}
        return
    try:
        opened = tarfile.open(archive)  # noqa: SIM115 (closed below)
    except tarfile.ReadError as neither:
        raise ArchiveRefused("It is neither a zip nor a tar.") from neither
    with opened as tarred:
        members: _Members = {}
        for number, each in enumerate(tarred):
            _check_count(number)
            if each.isreg():
                members[_path(each.name)] = _Member(each.size, partial(tarred.extractfile, each))
        yield members


def _check_count(members: int) -> None:
    if members > _MOST_MEMBERS:
        raise ArchiveRefused(f"It has over {_MOST_MEMBERS} entries.")


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


def _main(archive: Path, into: Path, most_bytes: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
    try:
        _unpack(archive, into, most_bytes)
    except ArchiveRefused as refused:
        sys.stdout.write(str(refused))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
