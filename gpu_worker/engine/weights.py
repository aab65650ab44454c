"""Load a base model as transformers defines it, ready for paged attention and LoRA."""

import logging
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from gpu_worker.engine.arriving import Arriving, NotArrived, place, put_together
from gpu_worker.engine.assembled import ASSEMBLED
from gpu_worker.engine.attention import NAME
from gpu_worker.engine.device import Machine
from gpu_worker.engine.lora.linears import LinearGroup, install
from gpu_worker.engine.request import ModelRefused
from gpu_worker.engine.substitutes import substitute

log = logging.getLogger(__name__)

# transformers patches its own classes while it loads: two loads at once leave them broken, so that
# tied weights are missing in every later one.
_LOADING = threading.Lock()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    model: torch.nn.Module
    machine: Machine
    groups: list[LinearGroup]
    eos: frozenset[int]  # tokens that end a generation
    context_length: int
    vocabulary: int


def load(
    folder: Path,
    device: str,
    dtype: str,
    *,
    deterministic: bool = False,
    arriving: Arriving | None = None,
) -> LoadedModel:
    """The model in eval mode, its layers not yet replaced. `arriving`: its weights are still coming
    into the folder. Raises ModelRefused with the reason, NotArrived."""
    kind = "model"
    if not folder.is_dir():
        raise ModelRefused(f"{folder} is not a folder")
    try:
        config = AutoConfig.from_pretrained(folder)
        kind = config.model_type
        if config.is_encoder_decoder:
            raise ModelRefused(f"{kind} is an encoder-decoder model")
        stored = config.dtype or torch.float32
        machine = Machine(device, dtype, stored, deterministic=deterministic)
        if arriving is None:
            model = ASSEMBLED.take(folder, machine.dtype) or assemble(folder, machine.dtype)
        else:
            again = partial(assemble, folder, machine.dtype)
            model = put_together(folder, machine.dtype, again, arriving)
            place(model, folder, machine.device, arriving)
    except (ModelRefused, NotArrived):
        raise
    except KeyError as missing:
        if missing.args != (NAME,):
            raise ModelRefused(f"{kind}: {missing!r}") from missing
        reason = f"{kind} does not use transformers' attention interface"
        raise ModelRefused(reason) from missing
    except Exception as broken:  # missing files, unknown architecture, broken tensors …
        raise ModelRefused(f"{kind}: {type(broken).__name__}: {broken}") from broken
    model = model.to(machine.device).eval()
    text = config.get_text_config()
    return LoadedModel(
        model, machine, [], _eos_ids(model), _context_length(text), int(text.vocab_size)
    )


def assemble(folder: Path, dtype: torch.dtype | str) -> Any:
    """transformers' model with its weights, mapped where they are stored in `dtype` ("auto": as
    they are stored). Raises ModelRefused, and whatever transformers raises."""
    with _LOADING:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=NAME, output_loading_info=True
        )
    if absent := sorted(report["missing_keys"]):  # transformers would make them up
        kind = model.config.model_type
        raise ModelRefused(f"{kind}: the checkpoint has no {', '.join(absent[:5])}")
    return model


def import_classes(folder: Path) -> None:
    """Import what `load` will need for this model, if it can be had; computes nothing."""
    try:
        config = AutoConfig.from_pretrained(folder)
        _ = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        get_checkpoint_conversion_mapping(config.model_type)  # compiles a thousand patterns, once
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as weights:
                for tensor in weights.keys():  # noqa: SIM118
                    WeightRenaming(tensor, tensor)  # one more each, which Python remembers
    except Exception as unknown:  # `load` will refuse it, with the reason
        log.info("%s: nothing to import: %s", folder, unknown)


def prepare(loaded: LoadedModel) -> None:
    """Replace the linear layers and what else is computed faster elsewhere; fills `groups`.

    Raises ModelRefused for a model that isn't built like a decoder.
    """
    try:
        _replace(loaded)
    except (AttributeError, TypeError, ValueError) as strange:
        kind = loaded.model.config.model_type  # type: ignore[union-attr]
        raise ModelRefused(f"{kind}: its layers can't be replaced: {strange}") from strange


def _replace(loaded: LoadedModel) -> None:
    model, machine = loaded.model, loaded.machine
    head = getattr(model, "get_output_embeddings", lambda: None)()
    loaded.groups.extend(install(model, machine.linear))
    if machine.kernels is not None:
        substitute(model, machine.kernels)
    if (machine.compiled or machine.deterministic) and isinstance(head, torch.nn.Linear):
        model.set_output_embeddings(machine.linear([head]))  # type: ignore[operator]


def _eos_ids(model: torch.nn.Module) -> frozenset[int]:
    ids = model.generation_config.eos_token_id  # type: ignore[union-attr]
    if ids is None:
        ids = model.config.eos_token_id  # type: ignore[union-attr]
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _context_length(text_config: Any) -> int:
    """Of models whose rotary frequencies change with the longest text in the batch ("dynamic",
    "longrope"), only the part in which they don't."""
    longest = int(
        getattr(text_config, "max_position_embeddings", None)
        or getattr(text_config, "n_positions", 0)
        or 2**20
    )
    rope = getattr(text_config, "rope_parameters", None) or {}
    for kind in (rope, *(r for r in rope.values() if isinstance(r, dict))):
        if kind.get("rope_type") in ("dynamic", "longrope"):
            longest = min(longest, int(kind.get("original_max_position_embeddings") or longest))
    return longest
