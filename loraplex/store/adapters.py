"""Adapters on this machine, by digest, and the checks at registration. No torch.

What the files must hold for any base model is in `peft_checks.py`; here is whether they fit one.
"""

import hashlib
import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraplex.store.peft_checks import (
    CONFIG,
    MAX_RANK,
    WEIGHTS,
    AdapterInvalid,
    check_tensors,
    parse_config,
)

__all__ = ["AdapterFacts", "AdapterInvalid", "AdapterStore"]


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    digest: str
    rank: int  # the largest of any layer
    targets: list[str]
    size_bytes: int


_HEADS = ("lm_head", "embed_out")  # adapters of the output layer aren't supported
_RELATED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), ("qkv_proj",)),
    **dict.fromkeys(("gate_proj", "up_proj"), ("gate_up_proj",)),
    "qkv_proj": ("q_proj",),
    "gate_up_proj": ("gate_proj",),
}


class AdapterStore:
    """Folders under `root`, named by digest, each with PEFT's two files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, digest: str) -> Path:
        """Where an adapter lies. The digest is hexadecimal, so that it can't leave the store."""
        if not digest or not all(c in "0123456789abcdef" for c in digest):
            raise ValueError(f"not a digest: {digest!r}")
        return self.root / digest

    @staticmethod
    def base_model_of(config: bytes) -> str:
        """The base model that an adapter's config names; may be empty. Raises AdapterInvalid."""
        return str(parse_config(config).get("base_model_name_or_path") or "")

    def put(self, config: bytes, weights: bytes, base_model_folder: Path | None) -> AdapterFacts:
        """Check and store an adapter; the same content is stored once. Raises AdapterInvalid."""
        facts = inspect(config, weights, base_model_folder)
        target = self.folder(facts.digest)
        if not target.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root) as scratch:
                fresh = Path(scratch) / "adapter"
                fresh.mkdir()
                (fresh / CONFIG).write_bytes(config)
                (fresh / WEIGHTS).write_bytes(weights)
                try:
                    fresh.rename(target)
                except OSError:
                    if not target.exists():  # else: another process stored the same content
                        raise
        return facts


def inspect(config: bytes, weights: bytes, base_model_folder: Path | None) -> AdapterFacts:
    """The facts of an adapter, or AdapterInvalid. With a base model, shapes must fit its layers."""
    fields = parse_config(config)
    shapes = safetensors_shapes(weights)
    ranks, targets = [], set()
    for name, shape in shapes.items():
        stem, _, side = name.removesuffix(".weight").removesuffix(".default").rpartition(".")
        if side not in ("lora_A", "lora_B") or len(shape) != 2:
            raise AdapterInvalid(f"{WEIGHTS}: tensor {name!r} isn't LoRA for a linear layer.")
        targets.add(stem.rpartition(".")[2])
        ranks.append(shape[0] if side == "lora_A" else shape[1])
    if not ranks:
        raise AdapterInvalid(f"{WEIGHTS} holds no LoRA tensors.")
    if max(ranks) > MAX_RANK:
        raise AdapterInvalid(f"r={max(ranks)} is over the largest rank served, {MAX_RANK}.")
    check_tensors(fields, weights)
    if base_model_folder is not None:
        _check_fit(shapes, base_model_folder)
    return AdapterFacts(
        digest=hashlib.sha256(len(config).to_bytes(8, "big") + config + weights).hexdigest(),
        rank=max(ranks),
        targets=sorted(targets),
        size_bytes=len(config) + len(weights),
    )


def _check_fit(adapter: dict[str, list[int]], base_folder: Path) -> None:
    base: dict[str, list[int]] = {}
    for file in base_folder.glob("*.safetensors"):
        with file.open("rb") as weights:
            base |= _header(weights.read(8), weights.read)[0]
    for name, shape in adapter.items():
        linear, _, side = (
            (name.removeprefix("base_model.model.").removesuffix(".weight"))
            .removesuffix(".default")
            .rpartition(".")
        )
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
        width = shape[1] if side == "lora_A" else shape[0]
        if width not in layer:
            raise AdapterInvalid(
                f"{WEIGHTS}: {name!r} has shape {shape}, which doesn't fit the base model's "
                f"layer of shape {layer}. Was it trained on another base model?"
            )


def safetensors_shapes(raw: bytes) -> dict[str, list[int]]:
    """Shapes by tensor name, from the header of a safetensors file. Raises AdapterInvalid."""
    entries, end = _header(raw[:8], lambda size: raw[8 : 8 + size])
    if end != len(raw):
        raise AdapterInvalid(f"{WEIGHTS} is cut off or has a tail: is the upload complete?")
    return entries


def _header(length: bytes, read: Any) -> tuple[dict[str, list[int]], int]:
    """Shapes by name, and where the file ends. 8 bytes little-endian length, then so much JSON."""
    try:
        (size,) = struct.unpack("<Q", length)
        if size > 100 * 2**20:
            raise ValueError("header too long")
        header = json.loads(read(size))
        header.pop("__metadata__", None)
        shapes = {name: list(map(int, entry["shape"])) for name, entry in header.items()}
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
        "".join(shapes).encode()  # JSON can spell half a surrogate pair
        return shapes, 8 + size + max(ends, default=0)
    except (
        *(ValueError, LookupError, TypeError, AttributeError),
        *(OverflowError, RecursionError, struct.error),
    ) as broken:
        raise AdapterInvalid(f"{WEIGHTS} isn't a safetensors file: {broken}") from broken
