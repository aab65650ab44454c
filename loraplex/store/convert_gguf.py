"""GGUF file → a Hugging Face model folder (safetensors bf16 + tokenizer + chat template).

Runs as its own process (`python -m loraplex.store.convert_gguf FILE OUT`): it needs torch and a
gigabyte of memory for some seconds, and those that call it should not.
"""

import sys
from pathlib import Path


def convert(gguf: Path, out: Path) -> None:
    """Write `out/` so that `from_pretrained(out)` gives the dequantized model.

    transformers marks a model loaded from GGUF as quantized and then refuses `save_pretrained`; the
    weights are plain tensors by then, so they move into a fresh module of the same config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder, name = str(gguf.parent), gguf.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    config = AutoConfig.from_pretrained(folder, gguf_file=name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    fresh.generation_config = loaded.generation_config
    fresh.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors writes 0600: a replica in a container is another user


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
