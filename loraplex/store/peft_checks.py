"""What PEFT's `adapter_config.json` and weights must be so that we serve them as PEFT would.

Refusals name the field: the alternative is an adapter that is silently computed wrong, or one
that fails when the first request needs it.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 256
MAX_CONFIG = 2**20  # bytes
# Each dtype as unsigned integers, and the exponent that infinities and NaNs have.
_FLOATS: dict[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
# A free regular expression can take for ever to match.
_SIMPLE_PATTERN = re.compile(r"\^?[\w.\-\\*+]{1,256}\$?", re.ASCII)
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
_UNSUPPORTED = (
    *("use_dora", "modules_to_save", "lora_bias", "target_parameters", "use_qalora"),
    *("trainable_token_indices", "layer_replication", "alora_invocation_tokens"),
)


class AdapterInvalid(Exception):
    """Files that aren't a LoRA adapter that we serve; the text names what is wrong."""


def parse_config(raw: bytes) -> dict[str, Any]:
    """The config as a dictionary, its fields checked. Raises AdapterInvalid."""
    if len(raw) > MAX_CONFIG:
        raise AdapterInvalid(f"{CONFIG} has over {MAX_CONFIG} bytes.")
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as broken:
        raise AdapterInvalid(f"{CONFIG} isn't JSON: {broken}") from broken
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise AdapterInvalid(f"{CONFIG}: peft_type must be LORA.")
    init = config.get("init_lora_weights", True)
    refused = {field: bool(config.get(field)) for field in _UNSUPPORTED} | {
        "bias": config.get("bias", "none") != "none",
        "task_type": config.get("task_type") not in (None, "CAUSAL_LM"),
        "init_lora_weights": isinstance(init, str) and init.lower().startswith(_CHANGES_BASE),
    }
    for field, used in refused.items():
        if used:
            raise AdapterInvalid(f"{CONFIG}: {field}={config.get(field)!r} isn't supported.")
    for field, default in (("r", 8), ("lora_alpha", 8)):
        _check_number(field, config.setdefault(field, default))
    for field in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(field) or {}
        if not isinstance(patterns, dict):
            raise AdapterInvalid(f"{CONFIG}: {field} must be an object.")
        for pattern, value in patterns.items():
            _check_number(field, value)
            if not _SIMPLE_PATTERN.fullmatch(pattern) or sum(map(pattern.count, "*+")) > 2:
                raise AdapterInvalid(
                    f"{CONFIG}: {field} {pattern!r}: use layer names, with at most two '*' or '+'."
                )
    _check_lists(config)
    if not isinstance(config.get("base_model_name_or_path") or "", str):
        raise AdapterInvalid(f"{CONFIG}: base_model_name_or_path must be a string.")
    return config


@dataclass(frozen=True, slots=True)
class LoraTensor:
    """One side of one layer: A [rank, in] or B [out, rank]."""

    name: str
    linear: str
    side: str  # "A" or "B"
    shape: list[int]

    @property
    def rank(self) -> int:
        return self.shape[0 if self.side == "A" else 1]

    @property
    def width(self) -> int:
        """Of the layer's input (A) or output (B)."""
        return self.shape[1 if self.side == "A" else 0]


def check_tensors(config: Mapping[str, Any], raw: bytes) -> list[LoraTensor]:
    """Weights that PEFT could load with this config, all of them finite. Raises AdapterInvalid."""
    try:
        tensors = dict(deserialize(raw))  # type: ignore[no-untyped-call]
    except SafetensorError as broken:
        raise AdapterInvalid(
            f"{WEIGHTS} isn't a safetensors file, is cut off or has a tail: {broken}"
        ) from broken
    if not tensors:
        raise AdapterInvalid(f"{WEIGHTS} holds no LoRA tensors.")
    checked = []
    for name, content in tensors.items():
        tensor = parse_name(name, content["shape"])
        checked.append(tensor)
        if content["dtype"] not in _FLOATS:
            raise AdapterInvalid(
                f"{WEIGHTS}: {name!r} is {content['dtype']}: use F32, F16 or BF16."
            )
        kind, exponent = _FLOATS[content["dtype"]]
        if ((np.frombuffer(content["data"], kind) & exponent) == exponent).any():
            raise AdapterInvalid(f"{WEIGHTS}: {name!r} holds NaN or infinite values.")
        _check_rank(config, tensor)
        targets = config.get("target_modules")
        if isinstance(targets, list) and not any(
            tensor.linear == t or tensor.linear.endswith(f".{t}") for t in targets
        ):
            raise AdapterInvalid(f"{CONFIG}: target_modules doesn't name {tensor.linear!r}.")
    _check_layers(config, checked)
    sides = defaultdict(list)
    for tensor in checked:
        sides[tensor.linear].append(tensor.side)
    for linear, found in sides.items():
        if sorted(found) != ["A", "B"]:
            raise AdapterInvalid(
                f"{WEIGHTS}: {linear!r} has only one of lora_A and lora_B, or one of them twice."
            )
    return checked


def _check_layers(config: Mapping[str, Any], tensors: Sequence[LoraTensor]) -> None:
    """Whether PEFT would adapt the layers that there are weights for."""
    only = config.get("layers_to_transform")
    excluded = config.get("exclude_modules") or []
    if isinstance(excluded, str):
        if not _SIMPLE_PATTERN.fullmatch(excluded) or sum(map(excluded.count, "*+")) > 2:
            raise AdapterInvalid(f"{CONFIG}: exclude_modules: name layers, in a list.")
        patterns = [excluded]
    else:
        patterns = [rf"(.*\.)?{re.escape(name)}" for name in excluded]
    wanted = {only} if isinstance(only, int) else None if only is None else {*only}
    for tensor in tensors:
        if any(re.fullmatch(pattern, tensor.linear) for pattern in patterns):
            raise AdapterInvalid(f"{CONFIG}: exclude_modules names {tensor.linear!r}.")
        number = re.search(r"\.(\d+)\.", tensor.linear)
        if wanted is not None and (number is None or int(number[1]) not in wanted):
            raise AdapterInvalid(f"{CONFIG}: layers_to_transform leaves {tensor.linear!r} out.")


def _check_lists(config: Mapping[str, Any]) -> None:
    """Fields that name layers. Raises AdapterInvalid."""
    layers = config.get("layers_to_transform")
    numbers = isinstance(layers, list) and all(isinstance(each, int) for each in layers)
    if layers is not None and not isinstance(layers, int) and not numbers:
        raise AdapterInvalid(f"{CONFIG}: layers_to_transform must be numbers of layers.")
    for field in ("target_modules", "exclude_modules"):
        given = config.get(field)
        names = isinstance(given, list) and all(isinstance(each, str) for each in given)
        if given is not None and not isinstance(given, str) and not names:
            raise AdapterInvalid(f"{CONFIG}: {field} must be names of layers.")


def _check_number(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterInvalid(f"{CONFIG}: {field}={value!r} must be a number.")
    limit = MAX_RANK if field in ("r", "rank_pattern") else 1e6
    if not 0 < value <= limit:
        raise AdapterInvalid(f"{CONFIG}: {field}={value!r} must be over 0 and at most {limit:g}.")


def _check_rank(config: Mapping[str, Any], tensor: LoraTensor) -> None:
    allowed = {config["r"], *(config.get("rank_pattern") or {}).values()}
    if tensor.rank not in allowed:
        raise AdapterInvalid(
            f"{CONFIG}: r={config['r']} (and rank_pattern), but {tensor.linear!r} has rank "
            f"{tensor.rank}."
        )


def parse_name(name: str, shape: list[int]) -> LoraTensor:
    """Raises AdapterInvalid."""
    match = re.fullmatch(
        r"base_model\.model\.(?P<linear>.+)\.lora_(?P<side>[AB])(\.default)?\.weight", name
    )
    if match is None or len(shape) != 2:
        raise AdapterInvalid(f"{WEIGHTS}: tensor {name!r} isn't LoRA for a linear layer.")
    return LoraTensor(name, match["linear"], match["side"], shape)
