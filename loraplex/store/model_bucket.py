"""Base models in a bucket (LORAPLEX_MODEL_STORE), for many machines: `PREFIX/org--model/…` are the
files of a model's folder and their manifest."""

from collections.abc import Callable
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
from loraplex.store.ranges import BLOCK


class ModelBucket:
    """All raise OSError where it can't be reached."""

    def __init__(self, url: str, block_bytes: int = BLOCK) -> None:
        """`block_bytes`: of what is stored here; what is fetched has its own."""
        self._bucket = Bucket(url)
        self._block = block_bytes

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
        """Fetch it into `folder`. `held` is closed when all is there or nothing more comes."""
        size = manifest.size_bytes

        def here(count: int) -> None:
            tell(mib_of("fetching", name, count, size), count / size)

        def read(file: str) -> Callable[[int, int], memoryview]:
            return partial(self._bucket.read, f"{folder_name(name)}/{file}")

        return Arriving(folder, manifest, read, here, held)

    def publish(self, name: str, folder: Path, tell: Tell) -> None:
        """If it isn't there."""
        if self.manifest(name) is not None:
            return
        manifest, sent = manifests.of_folder(folder, self._block), 0
        for file, stored in manifest.files.items():
            share = sent / manifest.size_bytes
            tell(mib_of("storing", name, sent, manifest.size_bytes), share)
            self._bucket.put(f"{folder_name(name)}/{file}", folder / file)
            sent += stored.size_bytes
        self._bucket.put(f"{folder_name(name)}/{manifests.NAME}", manifests.encode(manifest))


def model_bucket(settings: Settings) -> ModelBucket | None:
    """None: base models are in the home folder alone."""
    return ModelBucket(settings.model_store) if settings.model_store else None
