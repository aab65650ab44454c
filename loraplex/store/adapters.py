"""Adapters on this machine, by digest, and the checks at registration. No torch.

What the files must hold for any base model is in `peft_checks.py`; here is whether they fit one.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from loraplex.settings import Settings
from loraplex.store.adapter_folders import UNFINISHED, AdapterFolders
from loraplex.store.peft_checks import (
    CONFIG,
    WEIGHTS,
    AdapterInvalid,
    LoraTensor,
    check_tensors,
    parse_config,
)
from loraplex.store.remote_adapters import RemoteAdapters, remote_of

__all__ = ["AdapterFacts", "AdapterInvalid", "AdapterStore"]


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    digest: str
    rank: int  # the largest of any layer
    targets: list[str]
    size_bytes: int


_RENEW_EACH_S = 3600.0  # less than what is kept that nobody uses
_HEADS = ("lm_head", "embed_out")  # adapters of the output layer aren't supported
_RELATED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), ("qkv_proj",)),
    **dict.fromkeys(("gate_proj", "up_proj"), ("gate_up_proj",)),
    "qkv_proj": ("q_proj",),
    "gate_up_proj": ("gate_proj",),
}


class AdapterStore(AdapterFolders):
    """Folders of adapters that were checked. With a `remote` the truth is there, and these are
    copies."""

    def __init__(self, root: Path, remote: RemoteAdapters | None = None) -> None:
        super().__init__(root)
        self.remote = remote
        self._renewed: dict[str, float] = {}  # when it was last told there that it is used

    @staticmethod
    def base_model_of(config: bytes) -> str:
        """The base model that an adapter's config names; may be empty. Raises AdapterInvalid."""
        return str(parse_config(config).get("base_model_name_or_path") or "")

    def put(self, config: bytes, weights: bytes, base_model_folder: Path | None) -> AdapterFacts:
        """Check and store an adapter; the same content is stored once. Raises AdapterInvalid."""
        facts = inspect(config, weights, base_model_folder)
        if not super().use(facts.digest):
            self._keep(facts.digest, config, weights)
        self.ensure(facts.digest)
        return facts

    def ensure(self, digest: str) -> None:
        """That what is here is in the remote store, too: it may have been removed there, as
        nobody's, before it became somebody's."""
        if self.remote is not None and not self.remote.has(digest):
            self.remote.put(digest, self.folder(digest))

    def use(self, digest: str) -> bool:
        try:
            here = super().use(digest) or self.locate(digest).exists()
        except FileNotFoundError:
            return False
        if here and self.remote is not None and self._is_due(digest):
            self.remote.put(digest, self.folder(digest))  # it isn't old there, either
        return here

    def _is_due(self, digest: str) -> bool:
        now = time.monotonic()
        self._renewed = {d: at for d, at in self._renewed.items() if now - at < _RENEW_EACH_S}
        return self._renewed.setdefault(digest, now) == now

    def locate(self, digest: str) -> Path:
        """Its folder, fetched if need be. Raises FileNotFoundError, AdapterInvalid for one that was
        damaged on its way."""
        folder = self.folder(digest)
        if folder.exists() or self.remote is None:
            return folder
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self._made_root()) as scratch:
            files = [Path(scratch) / name for name in (CONFIG, WEIGHTS)]
            for file in files:
                self.remote.copy(digest, file.name, file)
            if digest_of(*files) != digest:
                raise AdapterInvalid(f"The files of {digest[:12]} don't match their digest.")
            config, weights = (file.read_bytes() for file in files)
        self._keep(digest, config, weights)
        return folder

    def _made_root(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    def _keep(self, digest: str, config: bytes, weights: bytes) -> None:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self._made_root()) as scratch:
            fresh = Path(scratch) / "adapter"
            fresh.mkdir()
            (fresh / CONFIG).write_bytes(config)
            (fresh / WEIGHTS).write_bytes(weights)
            with self._lock():
                target = self.folder(digest)
                if not target.exists():  # else: another process stored the same content
                    fresh.rename(target)
                os.utime(target)


def store_of(settings: Settings) -> AdapterStore:
    """A process', as it was set up."""
    return AdapterStore(settings.adapters_dir, remote_of(settings))


def digest_of(config: bytes | Path, weights: bytes | Path) -> str:
    """The name of an adapter's content, in memory or in files: SHA-256, hexadecimal."""
    if isinstance(config, Path):
        config = config.read_bytes()
    found = hashlib.sha256(len(config).to_bytes(8, "big") + config)
    if isinstance(weights, Path):
        with weights.open("rb") as file:
            while part := file.read(2**20):
                found.update(part)
    else:
        found.update(weights)
    return found.hexdigest()


def inspect(config: bytes, weights: bytes, base_model_folder: Path | None) -> AdapterFacts:
    """The facts of an adapter, or AdapterInvalid. With a base model, shapes must fit its layers."""
    tensors = check_tensors(parse_config(config), weights)
    if base_model_folder is not None:
        _check_fit(tensors, base_model_folder)
    return AdapterFacts(
        digest=digest_of(config, weights),
        rank=max(t.rank for t in tensors),
        targets=sorted({t.linear.rpartition(".")[2] for t in tensors}),
        size_bytes=len(config) + len(weights),
    )


def _check_fit(tensors: Sequence[LoraTensor], base_folder: Path) -> None:
    base = _shapes(base_folder)
    for tensor in tensors:
        linear = tensor.linear
        layer = base.get(f"{linear}.weight") or base.get(f"{linear.partition('.')[2]}.weight")
        parent, _, own = linear.rpartition(".")
        if layer is None and any(
            f"{parent}.{name}.weight" in base for name in _RELATED.get(own, ())
        ):
            continue  # fused here, split there: the engine maps one to the other and checks it
        if own in _HEADS or layer is None or len(layer) != 2:
            raise AdapterInvalid(
                f"{WEIGHTS}: no linear layer {linear!r} of the base model can be adapted."
            )
        if tensor.width not in layer:
            raise AdapterInvalid(
                f"{WEIGHTS}: {tensor.name!r} has shape {tensor.shape}, which doesn't fit the base "
                f"model's layer of shape {layer}. Was it trained on another base model?"
            )


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Of a model's tensors; only the headers of its files are read."""
    shapes: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="np") as tensors:
                names = tensors.keys()
                shapes |= {name: tensors.get_slice(name).get_shape() for name in names}
        except (SafetensorError, OSError) as broken:
            raise AdapterInvalid(
                f"The base model's {file.name} can't be read: {broken}"
            ) from broken
    return shapes
