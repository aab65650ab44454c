"""Load a base model as transformers defines it, ready for paged attention and LoRA."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gpu_worker.engine.attention import NAME
from gpu_worker.engine.request import ModelRefused


def pick_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it, else float32."""
    if name == "auto":
        native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        name = "bfloat16" if native else "float32"
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> torch.nn.Module:
    """The model in eval mode. Raises ModelRefused with the reason."""
    kind = "model"
    try:
        config = AutoConfig.from_pretrained(folder)
        kind = config.model_type
        if config.is_encoder_decoder:
            raise ModelRefused(f"{kind} is an encoder-decoder model")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=NAME)
    except ModelRefused:
        raise
    except KeyError as missing:
        if missing.args != (NAME,):
            raise ModelRefused(f"{kind}: {missing!r}") from missing
        reason = f"{kind} does not use transformers' attention interface"
        raise ModelRefused(reason) from missing
    except Exception as broken:  # missing files, unknown architecture, broken tensors …
        raise ModelRefused(f"{kind}: {type(broken).__name__}: {broken}") from broken
    return model.to(device).eval()  # type: ignore[no-any-return]


def eos_ids(model: torch.nn.Module) -> frozenset[int]:
    """Tokens that end a generation."""
    ids = model.generation_config.eos_token_id  # type: ignore[union-attr]
    if ids is None:
        ids = model.config.eos_token_id  # type: ignore[union-attr]
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def context_length(model: torch.nn.Module) -> int:
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    return int(
        getattr(config, "max_position_embeddings", None)
        or getattr(config, "n_positions", 0)
        or 2**20
    )
