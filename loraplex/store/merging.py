"""Several adapters → one, by LoRAX' four ways. Pure, in numpy; A and B are merged apart.

Each tensor of the result is of that tensor in each adapter that has it, in float32, with the
adapter's scaling folded into its B, and smaller ranks padded. Linear: the sum of them, weighted.
TIES (arXiv:2306.01708): the smallest values are dropped, each place elects a sign, and the mean is
taken of those that agree. DARE (arXiv:2311.03099): values are dropped at random, the others scaled
up by as much; the same merge always drops the same ones.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import deserialize
from safetensors.numpy import save

from loraplex.store.peft_checks import AdapterInvalid, LoraTensor, parse_config, parse_name

Array = npt.NDArray[np.float32]


class Strategy(StrEnum):
    LINEAR = "linear"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"


class MajoritySign(StrEnum):
    TOTAL = "total"  # by the sum of the values
    FREQUENCY = "frequency"  # by their number


@dataclass(frozen=True, slots=True)
class Merge:
    """What is merged how. `adapters`: refs, or digests; as many weights."""

    adapters: tuple[str, ...]
    weights: tuple[float, ...]
    strategy: Strategy = Strategy.LINEAR
    density: float = 1.0  # the part of the values that is kept; not by linear
    sign: MajoritySign = MajoritySign.TOTAL

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def name(self) -> str:
        """As it is shown in usage."""
        return f"merged({', '.join(self.adapters)})"


def merge(
    how: Merge, adapters: Sequence[tuple[bytes, bytes]], most_bytes: int
) -> tuple[bytes, bytes]:
    """Config and weights of each → config and weights of one, which has at most so many bytes.
    Raises AdapterInvalid."""
    found = [_Adapter(*files) for files in adapters]
    _check_size(found, most_bytes)
    merged: dict[str, Array] = {}
    ranks: dict[str, int] = {}
    for name in sorted({name for each in found for name in each.tensors}):
        having = [i for i, each in enumerate(found) if name in each.tensors]
        tensors = [found[i].tensor(name) for i in having]
        weights = np.array([how.weights[i] for i in having], np.float32)
        merged[name] = _merged(how, name, tensors, weights)
        tensor = parse_name(name, list(merged[name].shape))
        ranks[tensor.linear] = tensor.rank
    return _config(found[0].config, ranks), save(merged)


class _Adapter:
    def __init__(self, config: bytes, weights: bytes) -> None:
        self.config = parse_config(config)
        self.tensors: dict[str, Any] = {}  # by their names without `.default`
        self._parsed: dict[str, LoraTensor] = {}
        for name, tensor in deserialize(weights):  # type: ignore[no-untyped-call]
            plain = name.replace(".default.weight", ".weight")
            self.tensors[plain] = tensor
            self._parsed[plain] = parse_name(plain, tensor["shape"])

    def tensor(self, name: str) -> Array:
        parsed = self._parsed[name]
        values = _float32(self.tensors[name])
        return values * _scaling(self.config, parsed) if parsed.side == "B" else values


def _check_size(adapters: Sequence[_Adapter], most_bytes: int) -> None:
    """Before it is computed. Raises AdapterInvalid."""
    sizes: dict[str, int] = {}
    for each in adapters:
        for name, tensor in each.tensors.items():
            sizes[name] = max(sizes.get(name, 0), 4 * math.prod(tensor["shape"]))
    if sum(sizes.values()) > most_bytes:
        message = f"merged, they have {sum(sizes.values())} bytes (float32); at most {most_bytes}."
        raise AdapterInvalid(message)


def _float32(tensor: Mapping[str, Any]) -> Array:
    """numpy has no bfloat16: it is the upper half of a float32."""
    raw, shape = tensor["data"], tensor["shape"]
    if tensor["dtype"] == "BF16":
        bits = np.frombuffer(raw, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    kind = {"F32": np.float32, "F16": np.float16}[tensor["dtype"]]
    return np.frombuffer(raw, kind).astype(np.float32).reshape(shape)


def _scaling(config: Mapping[str, Any], tensor: LoraTensor) -> np.float32:
    """As PEFT has it: alpha / r, or alpha / √r with rsLoRA (arXiv:2312.03732)."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", tensor.linear):
            alpha = value
            break
    rank = tensor.rank
    return np.float32(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _merged(how: Merge, name: str, given: Sequence[Array], weights: Array) -> Array:
    if how.strategy is Strategy.TIES:
        given = [_largest(tensor, how.density) for tensor in given]
    tensors = _stacked(name, given)
    if how.strategy in (Strategy.DARE_LINEAR, Strategy.DARE_TIES):
        tensors = tensors * _kept(how, name, tensors.shape)
    weighted = tensors * weights.reshape(-1, *[1] * (tensors.ndim - 1))
    if how.strategy in (Strategy.LINEAR, Strategy.DARE_LINEAR):
        return np.asarray(weighted.sum(0), np.float32)
    signs = np.sign(tensors)
    votes = (tensors if how.sign is MajoritySign.TOTAL else signs).sum(0)
    agreeing = signs == np.where(votes >= 0, 1.0, -1.0)
    mean = (weighted * agreeing).sum(0) / np.maximum(agreeing.sum(0), 1)
    return np.asarray(mean, np.float32)


def _stacked(name: str, tensors: Sequence[Array]) -> Array:
    """[adapters, …]. A smaller rank is padded with zeros, which changes nothing of its adapter."""
    rows, columns = (max(t.shape[axis] for t in tensors) for axis in (0, 1))
    width = 1 if ".lora_A." in name else 0
    if len({t.shape[width] for t in tensors}) > 1:
        shapes = " and ".join(sorted({str(t.shape) for t in tensors}))
        raise AdapterInvalid(f"{name!r} has shapes that don't go together: {shapes}.")
    padded = [np.pad(t, ((0, rows - t.shape[0]), (0, columns - t.shape[1]))) for t in tensors]
    return np.stack(padded)


def _largest(tensor: Array, density: float) -> Array:
    """Only the values of the largest magnitudes, as many as `density` tells."""
    kept = int(density * tensor.size)
    if kept >= tensor.size:
        return tensor
    flat = tensor.reshape(-1)
    out = np.zeros_like(flat)
    if kept:
        places = np.argpartition(np.abs(flat), -kept)[-kept:]
        out[places] = flat[places]
    return out.reshape(tensor.shape)


def _kept(how: Merge, name: str, shape: tuple[int, ...]) -> Array:
    """1 / density where a value is kept, else 0; drawn anew for each tensor, and always alike."""
    seed = hashlib.sha256(f"{how.key}:{name}".encode()).digest()
    draws = np.random.Generator(np.random.Philox(int.from_bytes(seed[:16], "big"))).random(shape)
    return ((draws < how.density) / how.density).astype(np.float32)


def _config(first: Mapping[str, Any], ranks: Mapping[str, int]) -> bytes:
    """With a scaling of 1 for each layer."""
    common = Counter(ranks.values()).most_common(1)[0][0]
    others = {linear: rank for linear, rank in ranks.items() if rank != common}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": first.get("base_model_name_or_path"),
        "r": common,
        "lora_alpha": common,
        "target_modules": sorted({linear.rpartition(".")[2] for linear in ranks}),
        "rank_pattern": others,
        "alpha_pattern": others,
    }
    return json.dumps(config).encode()
