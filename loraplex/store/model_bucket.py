"""Base models in a bucket (LORAPLEX_MODEL_STORE), for many machines: the files of a model's folder
are `PREFIX/org--model/DIGEST/…`, `PREFIX/org--model/loraplex-manifest.json` says which it is now.
What lies below a digest is never changed."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec

from loraplex.settings import Settings
from loraplex.store import manifest as manifests
from loraplex.store.arriving import Arriving
from loraplex.store.bucket import Bucket
from loraplex.store.manifest import Manifest
from loraplex.store.models import Tell, folder_name, mib_of
from loraplex.store.ranges import BLOCK, Read


class ModelBucket:
    """All raise OSError where it can't be reached."""

    def __init__(self, url: str, block_bytes: int = BLOCK) -> None:
        """`block_bytes`: of what is stored here; what is fetched has its own."""
        self._bucket = Bucket(url)
        self._block = block_bytes

    def __str__(self) -> str:
        return self._bucket.url

    def manifest(self, name: str) -> Manifest | None:
        """None: it isn't there."""
        path = f"{folder_name(name)}/{manifests.NAME}"
        try:
            return manifests.decode(self._bucket.read_all(path))
        except FileNotFoundError:
            return None
        except (ValueError, msgspec.MsgspecError) as broken:
            raise OSError(f"{self._bucket.url}/{path}: {broken}") from broken

    def begin(
        self, name: str, manifest: Manifest, folder: Path, tell: Tell, held: ExitStack
    ) -> Arriving:
        """Fetch it into `folder`; `held` is closed when all is there or nothing more comes. Returns
        when all is there but the weights."""
        size, where = manifest.size_bytes, _where(name, manifest)

        def here(count: int) -> None:
            tell(mib_of("fetching", name, count, size), count / size)

        def read(file: str) -> Read:
            return partial(self._bucket.read, f"{where}/{file}")

        arriving = Arriving(folder, manifest, f"{self}/{where}", read, here, held)
        try:
            arriving.wait_beginning()
        except BaseException:
            arriving.cancel()
            raise
        return arriving

    def publish(self, name: str, folder: Path, tell: Tell, note: Path) -> None:
        """What of this content isn't there. `note` keeps what was found out of the folder, so that
        it isn't read each time."""
        there, known = self.manifest(name), note.read_text() if note.exists() else ""
        if there is not None and known == _found_out(there, folder):
            manifest = there
        else:
            tell(f"reading {name}", None)
            manifest = manifests.of_folder(folder, self._block)
            note.write_text(_found_out(manifest, folder))
        sent, size, where = 0, manifest.size_bytes, _where(name, manifest)
        for file, stored in manifest.files.items():
            if self._bucket.size(f"{where}/{file}") != stored.size_bytes:
                tell(mib_of("storing", name, sent, size), sent / size)
                self._bucket.put(f"{where}/{file}", folder / file)
            sent += stored.size_bytes
        if there is None or there.digest != manifest.digest:
            self._bucket.put(f"{folder_name(name)}/{manifests.NAME}", manifests.encode(manifest))


def _where(name: str, manifest: Manifest) -> str:
    """In the bucket."""
    return f"{folder_name(name)}/{manifest.digest}"


def _found_out(manifest: Manifest, folder: Path) -> str:
    """That these files are what the manifest says."""
    stats = {name: (folder / name).stat() for name in manifest.files if (folder / name).exists()}
    seen = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]
    return f"{manifest.digest} {seen}"


def model_bucket(settings: Settings) -> ModelBucket | None:
    """None: base models are in the home folder alone."""
    return ModelBucket(settings.model_store) if settings.model_store else None
