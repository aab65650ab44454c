"""A PEFT LoRA folder → weights by linear layer, or a refusal that names the field.

Format: PEFT's `adapter_config.json` and `adapter_model.safetensors`; tensors are called
`base_model.model.<linear>.lora_A.weight` [r, in] and `….lora_B.weight` [out, r].
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gpu_worker.engine.lora.linears import FUSED, LinearGroup
from gpu_worker.engine.request import AdapterRefused
from kernels.grouped_lora import Pair

MAX_RANK = 256
_NAME = re.compile(
    r"^base_model\.model\.(?P<linear>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$"
)
# Layer names with `.*` or `\d+`: a free regular expression can take for ever to match.
_SIMPLE_PATTERN = re.compile(r"\^?[\w.\-\\*+]{1,256}\$?", re.ASCII)


def read(folder: Path, groups: Sequence[LinearGroup]) -> list[list[Pair | None]]:
    """A and B in float32, scaling folded into B, arranged as the engine's linear layers are.

    Raises AdapterRefused when the files are missing or broken, use a feature that would be
    computed wrong, or don't fit the base model.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except Exception as broken:  # whatever is wrong with the files, it is this adapter's fault
        reason = f"can't be read (a folder in PEFT's format, with safetensors): {broken}"
        raise AdapterRefused(reason) from broken
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise AdapterRefused(f"{name} has values that are NaN or infinite")
    refuse_unsupported(config)
    return arrange(_pairs(config, tensors), groups)


def refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Raises AdapterRefused for a field that asks for more than A and B of linear layers."""
    if config.get("peft_type", "LORA") != "LORA":
        raise AdapterRefused(f"peft_type={config['peft_type']!r} isn't LORA")
    changes_base = ("pissa", "olora", "loftq", "corda", "lora_ga")
    init = config.get("init_lora_weights")
    for pattern in config.get("alpha_pattern") or {}:
        if not _SIMPLE_PATTERN.fullmatch(pattern) or sum(map(pattern.count, "*+")) > 2:
            raise AdapterRefused(f"alpha_pattern: {pattern!r} is too free a pattern")
    refused = {
        "init_lora_weights": isinstance(init, str) and init.lower().startswith(changes_base),
        "bias": config.get("bias", "none") != "none",
    }
    for field in (
        *("use_dora", "modules_to_save", "lora_bias", "target_parameters", "use_qalora"),
        *("trainable_token_indices", "layer_replication", "alora_invocation_tokens"),
    ):
        refused[field] = bool(config.get(field))
    for field, used in refused.items():
        if used:
            raise AdapterRefused(f"{field}={config.get(field)!r} isn't supported")


def scaling(config: Mapping[str, Any], linear: str, rank: int) -> float:
    """alpha / r, or alpha / √r with rsLoRA (arXiv:2312.03732); alpha_pattern overrides alpha."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", linear):  # as PEFT matches it
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _pairs(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Pair]:
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None:
            raise AdapterRefused(f"tensor {name!r} isn't LoRA for a linear layer")
        pair = sides.setdefault(match["linear"], {})
        if match["side"] in pair:
            raise AdapterRefused(f"tensor {name!r} is there twice")
        pair[match["side"]] = tensor.to(torch.float32)
    pairs = {}
    for linear, both in sides.items():
        if set(both) != {"A", "B"}:
            raise AdapterRefused(f"{linear!r} has only one of lora_A and lora_B")
        a, b = both["A"], both["B"]
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
            raise AdapterRefused(f"{linear!r}: A {tuple(a.shape)}, B {tuple(b.shape)}")
        if a.shape[0] > MAX_RANK:
            raise AdapterRefused(f"{linear!r}: r={a.shape[0]} is over {MAX_RANK}")
        pairs[linear] = (a, b * scaling(config, linear, a.shape[0]))
    if not pairs:
        raise AdapterRefused("has no LoRA weights")
    return pairs


def arrange(pairs: Mapping[str, Pair], groups: Sequence[LinearGroup]) -> list[list[Pair | None]]:
    """By group and slice. Adapters of a fused layer serve a split one and the other way round."""
    left = dict(pairs)
    arranged: list[list[Pair | None]] = []
    for group in groups:
        slices = [left.pop(name, None) for name in group.names]
        if len(group.names) == 1 and slices[0] is None:
            slices = [_joined(group, left)]
        elif not any(slices):
            slices = _split(group, left)
        for pair, width in zip(slices, group.widths, strict=True):
            if pair is not None and (
                pair[0].shape[1] != group.in_features or pair[1].shape[0] != width
            ):
                raise AdapterRefused(
                    f"{group.names[0]!r}: A {tuple(pair[0].shape)}, B {tuple(pair[1].shape)} "
                    f"don't fit a layer of {group.in_features} → {width}"
                )
        arranged.append(slices)
    if left:
        raise AdapterRefused(f"{min(left)!r} is no linear layer of the base that can be adapted")
    return arranged


def _split(group: LinearGroup, left: dict[str, Pair]) -> list[Pair | None]:
    """An adapter of `qkv_proj` for a base that has `q_proj`, `k_proj`, `v_proj`."""
    parent, _, _ = group.names[0].rpartition(".")
    own = tuple(name.rpartition(".")[2] for name in group.names)
    for fused, parts in FUSED.items():
        pair = left.get(f"{parent}.{fused}")
        if own == parts and pair is not None and pair[1].shape[0] == sum(group.widths):
            del left[f"{parent}.{fused}"]
            return [(pair[0], b) for b in pair[1].split(group.widths)]
    return [None] * len(group.names)


def _joined(group: LinearGroup, left: dict[str, Pair]) -> Pair | None:
    """Adapters of `q_proj`, `k_proj`, `v_proj` for a base that has `qkv_proj`: ranks add up."""
    parent, _, own = group.names[0].rpartition(".")
    names = [f"{parent}.{part}" for part in FUSED.get(own, ())]
    parts = [left.pop(name) for name in names if name in left]
    if not parts:
        return None
    if len(parts) < len(names):
        raise AdapterRefused(f"{parent!r}: only some of {', '.join(names)} are adapted")
    return torch.cat([a for a, _ in parts]), torch.block_diag(*(b for _, b in parts))
