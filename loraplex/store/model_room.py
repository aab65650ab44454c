"""Room for base models on this machine's disk: those that nobody needs or uses go, the least lately
used first. What the hub's cache holds for them counts, and goes with them."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loraplex.locked import is_held, locked
from loraplex.store.in_use import is_used, unused
from loraplex.store.models import ModelUnavailable, is_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredModel:
    name: str
    folder: Path
    size_bytes: int
    used_at: float  # Unix seconds, when it was last fetched or loaded
    whole: bool


class ModelRoom:
    """`needed`: names of models that must stay."""

    def __init__(self, root: Path, quota_bytes: int | None, needed: Callable[[], set[str]]) -> None:
        self._root = root
        self._quota = quota_bytes
        self._needed = needed

    def make(self, name: str, size_bytes: int) -> None:
        """For a model of so many bytes. Raises ModelUnavailable when those that are needed leave
        too little."""
        if self._quota is None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        with locked(self._root / ".room.lock"):
            self._make(name, size_bytes, self._quota)
            self._note(name).write_text(str(size_bytes))

    def _note(self, name: str) -> Path:
        """Of how much is coming, while its lock is held by who fetches it."""
        return self._root / f".{name.replace('/', '--')}.size"

    def _coming(self, name: str) -> int:
        """Bytes of others that are being fetched."""
        found = 0
        for note in self._root.glob(".*.size"):
            if note != self._note(name) and is_held(note.with_suffix(".lock")):
                found += int(note.read_text() or 0)
        return found

    def _make(self, name: str, size_bytes: int, quota: int) -> None:
        here = [
            model
            for model in stored(self._root)
            if model.name != name and not is_held(self._note(model.name).with_suffix(".lock"))
        ]
        taken = sum(model.size_bytes for model in here) + self._coming(name)
        excess = taken + size_bytes - quota
        needed = self._needed() | {model.name for model in here if is_used(model.folder)}
        unneeded = sorted(
            (m for m in here if m.name not in needed), key=lambda model: model.used_at
        )
        if excess > sum(model.size_bytes for model in unneeded):
            in_use = sorted(
                f"{model.name} ({_gib(model.size_bytes)})" for model in here if model.name in needed
            )
            raise ModelUnavailable(
                f"Base model {name!r} takes {_gib(size_bytes)}; base models may take "
                f"{_gib(quota)} (LORAPLEX_MODELS_GIB). In use: {', '.join(in_use) or 'none'}."
            )
        for model in unneeded:
            if excess <= 0:
                return
            with unused(model.folder) as nobody_has_it:  # since
                if nobody_has_it and model.name not in self._needed():
                    excess -= model.size_bytes
                    remove(model)


def stored(root: Path) -> Iterator[StoredModel]:
    if not root.is_dir():
        return
    for folder in root.iterdir():
        if folder.name.startswith(".") or not (folder / "config.json").is_file():
            continue
        name = folder.name.replace("--", "/")
        with suppress(FileNotFoundError):  # it is just being removed
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            yield StoredModel(name, folder, size, folder.stat().st_mtime, is_whole(folder))


def remove(model: StoredModel) -> None:
    """The folder first: without it nobody takes it for whole."""
    cached = [file.resolve() for file in model.folder.iterdir() if file.is_symlink()]
    aside = model.folder.with_name(f".removed-{model.folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    model.folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
    for file in cached:
        with suppress(OSError):
            file.unlink()
    log.info("base model %s is removed, %s", model.name, _gib(model.size_bytes))


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
