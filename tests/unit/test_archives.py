"""Archives that nobody vouches for: two files are read, whatever else they hold."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from loraplex.store.archives import ArchiveRefused, is_archive, unpack
from loraplex.store.peft_checks import CONFIG, WEIGHTS

FILES = {f"a/{CONFIG}": b"{}", f"a/{WEIGHTS}": b"weights"}


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


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
def test_two_files_come_out_of_it_and_nothing_else(pack: Any, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    content = pack(FILES | {"../outside": b"x", "/tmp/outside-of-loraplex": b"x", "README": b"x"})
    config, weights = unpack(io.BytesIO(content), into, 100)
    assert (config.read_bytes(), weights.read_bytes()) == (b"{}", b"weights")
    assert sorted(file.name for file in tmp_path.rglob("*")) == sorted(["into", CONFIG, WEIGHTS])
    assert not Path("/tmp/outside-of-loraplex").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"nothing of the kind", "can't be read"),
        (zipped(FILES)[:-40], "can't be read"),
        (tarred(FILES)[:40], "can't be read"),
        (zipped({f"a/{CONFIG}": b"{}", f"b/{WEIGHTS}": b""}), "no folder with"),
        (zipped(FILES | {f"b/{CONFIG}": b"", f"b/{WEIGHTS}": b""}), "several"),
        (tarred(FILES, link=f"a/{WEIGHTS}"), "no folder with"),
        (zipped({f"{CONFIG}": b"{}", f"{WEIGHTS}": bytes(10**6)}), "over 1000 bytes"),
        (tarred({f"{CONFIG}": b"{}", f"{WEIGHTS}": bytes(10**6)}), "over 1000 bytes"),
    ],
)
def test_others_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match=told):
        unpack(io.BytesIO(content), tmp_path, 1000)


def test_they_are_told_by_their_names() -> None:
    assert is_archive("s3://b/poet.TAR.GZ") and is_archive("/x/a.zip")
    assert not is_archive("s3://b/poet.v2")
