"""Archives that nobody vouches for: two files are read, whatever else they hold."""

import bz2
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from loraplex.store.archives import ArchiveRefused, is_archive, unpack
from loraplex.store.peft_checks import CONFIG, WEIGHTS

FILES = {f"a/{CONFIG}": b"{}", f"a/{WEIGHTS}": b"weights"}


def _huge_header() -> bytes:
    """A pax header of 3 GiB, in half a kilobyte."""
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 3 * 2**30
    squeezed = bz2.BZ2Compressor()
    parts = [squeezed.compress(head.tobuf())]
    parts += [squeezed.compress(bytes(2**24)) for _ in range(3 * 2**6)]
    return b"".join([*parts, squeezed.flush()])


HUGE_HEADER = _huge_header()


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def tarred(files: dict[str, bytes], mode: Any = "w:gz", link: str = "") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if name == link:
                entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def file(folder: Path, content: bytes) -> Path:
    archive = folder / "archive"
    archive.write_bytes(content)
    return archive


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_two_files_come_out_of_it_and_nothing_else(pack: Any, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    content = pack(FILES | {"../outside": b"x", "/tmp/outside-of-loraplex": b"x", "README": b"x"})
    config, weights = unpack(file(tmp_path, content), into, 100)
    assert (config.read_bytes(), weights.read_bytes()) == (b"{}", b"weights")
    found = sorted(each.name for each in tmp_path.rglob("*"))
    assert found == sorted(["archive", "into", CONFIG, WEIGHTS])
    assert not Path("/tmp/outside-of-loraplex").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"nothing of the kind", "neither a zip nor a tar"),
        (zipped(FILES)[:-40], "neither"),
        (tarred(FILES)[:40], "neither|can't be read"),
        (zipped({f"a/{CONFIG}": b"{}", f"b/{WEIGHTS}": b""}), "no folder with"),
        (zipped(FILES | {f"b/{CONFIG}": b"", f"b/{WEIGHTS}": b""}), "several"),
        (tarred(FILES, link=f"a/{WEIGHTS}"), "no folder with"),
        (zipped({f"{CONFIG}": b"{}", f"{WEIGHTS}": bytes(10**6)}), "over 1000 bytes"),
        (tarred({f"{CONFIG}": b"{}", f"{WEIGHTS}": bytes(10**6)}), "over 1000 bytes"),
        (zipped({f"{n}": b"" for n in range(10_001)} | FILES), "over 10000 entries"),
        (bytes(HUGE_HEADER), "memory and time|can't be read|neither"),
        (zipped({"\xff" * 3: b""}).replace("\xff".encode(), b"\xff\xfe"), "can't be read"),
        (tarred(FILES, "w:xz")[:60] + b"x" + tarred(FILES, "w:xz")[61:], "can't be read|neither"),
    ],
)
def test_others_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=told):
        unpack(file(tmp_path, content), tmp_path, 1000)


def test_names_of_the_commonest_tar(tmp_path: Path) -> None:
    content = tarred({f"./{name.partition('/')[2]}": each for name, each in FILES.items()})
    assert unpack(file(tmp_path, content), tmp_path, 100)[1].read_bytes() == b"weights"


def test_they_are_told_by_their_names() -> None:
    assert is_archive("s3://b/poet.TAR.GZ") and is_archive("/x/a.zip")
    assert not is_archive("s3://b/poet.v2")
