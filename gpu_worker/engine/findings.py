"""What was found out about a model, kept in a file, so that the next start needn't find it again.

That a model is computed right (`admission_probe.py`) depends on its files, on our code and torch's,
and on the machine. All of them make the file's name: whatever changes, the model is probed again.
Without a folder, or where it can't be read or written, every start probes.
"""

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

import torch
import transformers

import kernels
from gpu_worker.engine.attention import Shapes
from gpu_worker.engine.device import Machine
from kernels.cpu.build import fingerprint

log = logging.getLogger(__name__)


class Findings:
    """Of one model on one machine."""

    def __init__(self, folder: Path | None, model_folder: Path, machine: Machine) -> None:
        self._file: Path | None = None
        self.layers: Shapes | None = None  # of the KV cache; None: the model must be probed
        if folder is None:
            return
        try:
            self._file = folder / f"{_key(model_folder, machine)}.json"
            found = json.loads(self._file.read_text())
            self.layers = {int(layer): (tuple(k), tuple(v)) for layer, (k, v) in found.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as broken:
            log.warning("what was found out about %s can't be read: %s", model_folder, broken)

    def keep(self, layers: Shapes) -> None:
        """The model was probed, and is computed right."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, fresh = tempfile.mkstemp(dir=self._file.parent)
            with os.fdopen(handle, "w") as file:
                json.dump(layers, file)
            Path(fresh).rename(self._file)
        except OSError as failed:
            log.warning("the next start probes this model again: %s", failed)


def _key(model_folder: Path, machine: Machine) -> str:
    parts = [
        *(torch.__version__, torch.version.git_version, transformers.__version__),
        *(machine.device, machine.dtype, machine.stored, machine.triton, machine.compiled),
        *(machine.deterministic, fingerprint(), _code()),
    ]
    if machine.device.type == "cuda":
        parts += [torch.cuda.get_device_name(machine.device), torch.version.cuda]
    digest = hashlib.sha256(repr(parts).encode())
    for file in sorted(model_folder.iterdir()):
        if file.suffix not in (".safetensors", ".json"):
            continue
        stat = file.stat()  # of what a link points to
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(repr((file.name, facts)).encode())
        if file.name == "config.json":
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _code() -> str:
    """Digest of the engine's and the kernels' sources."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(kernels.__path__[0])):
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".c", ".h"):
                digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
