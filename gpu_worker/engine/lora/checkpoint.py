"""A PEFT LoRA folder → weights by linear layer, or a refusal that names the field.

Format: PEFT's `adapter_config.json` and `adapter_model.safetensors`; tensors are called
`base_model.model.<linear>.lora_A.weight` [r, in] and `….lora_B.weight` [out, r].
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gpu_worker.engine.request import AdapterRefused

_NAME = re.compile(
    r"^base_model\.model\.(?P<linear>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$"
)


def read(
    folder: Path, shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B by linear layer, scaling folded into B. `shapes`: (out, in) of the base's layers.

    Raises AdapterRefused when the files are missing or broken, use a feature that would be
    computed wrong, or don't fit the base model.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except Exception as broken:  # whatever is wrong with the files, it is this adapter's fault
        raise AdapterRefused(f"can't be read: {broken}") from broken
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None or match["linear"] not in shapes:
            raise AdapterRefused(f"tensor {name!r} doesn't belong to a linear layer of the base")
        pairs.setdefault(match["linear"], {})[match["side"]] = tensor
    weights = {}
    for linear, pair in pairs.items():
        if set(pair) != {"A", "B"}:
            raise AdapterRefused(f"{linear!r} has only one of lora_A and lora_B")
        a, b = pair["A"], pair["B"]
        out_size, in_size = shapes[linear]
        if a.shape != (b.shape[1], in_size) or b.shape[0] != out_size:
            raise AdapterRefused(
                f"{linear!r}: A {tuple(a.shape)}, B {tuple(b.shape)} don't fit a layer "
                f"of {in_size} → {out_size}"
            )
        scaled = b.to(torch.float32) * scaling(config, linear, a.shape[0])
        weights[linear] = (
            a.to(device, dtype).contiguous(),
            scaled.to(device, dtype).contiguous(),
        )
    if not weights:
        raise AdapterRefused("has no LoRA weights")
    return weights


def scaling(config: Mapping[str, Any], linear: str, rank: int) -> float:
    """alpha / r, or alpha / √r with rsLoRA (arXiv:2312.03732); alpha_pattern overrides alpha."""
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", linear):  # as PEFT matches it
            alpha = value
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
