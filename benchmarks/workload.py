"""Models, adapters and prompts for the engine's benchmarks: the small real model, random LoRA."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling

DISTINCT = 64
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def small_model() -> Path:
    """SmolLM2-135M-Instruct, in the checkout's model store."""
    from benchmarks.model_store import model_store  # a bare GPU machine has no platform
    from loraplex.store.models import DEMO_MODEL

    return model_store().fetch(DEMO_MODEL)


def make_adapters(
    model: Path, folder: Path, count: int, rank: int = 16, distinct: int = DISTINCT
) -> list[Path]:
    """`count` random PEFT adapters of every linear layer, as float32 as PEFT writes them.

    Beyond the first `distinct` the files are hard links to those: 20 GB of weights for a thousand
    would measure the disk. The engine knows adapters by name and reads and packs each.
    """
    config = json.loads((model / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv = config["num_key_value_heads"] * (config.get("head_dim") or hidden // heads)
    shapes = {
        **{"q_proj": (hidden, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden)},
        **{"o_proj": (hidden, hidden), "down_proj": (hidden, inner)},
        **{"gate_proj": (inner, hidden), "up_proj": (inner, hidden)},
    }
    made = []
    for index in range(count):
        path = folder / f"adapter-{index}"
        made.append(path)
        if path.is_dir():
            continue
        path.mkdir(parents=True)
        if index >= distinct:
            for file in made[index % distinct].iterdir():
                (path / file.name).hardlink_to(file)
            continue
        generator = torch.Generator().manual_seed(index)
        tensors = {}
        for layer in range(config["num_hidden_layers"]):
            for target, (rows, columns) in shapes.items():
                block = "self_attn" if target in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
                name = f"base_model.model.model.layers.{layer}.{block}.{target}"
                a = torch.randn(rank, columns, generator=generator) * 0.02
                b = torch.randn(rows, rank, generator=generator) * 0.02
                tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
        save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
        lora = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": TARGETS}
        text = json.dumps(lora | {"base_model_name_or_path": str(model), "task_type": "CAUSAL_LM"})
        (path / "adapter_config.json").write_text(text)
    return made


def prompt(seed: int, length: int) -> list[int]:
    return [(7919 * seed + 13 * i) % 40_000 + 10 for i in range(length)]


def requests(
    tag: str, adapters: Sequence[str | None], prompt_length: int, new_tokens: int
) -> list[Request]:
    """One a stream: stream i uses adapters[i]."""
    sampling = Sampling(new_tokens, ignore_eos=True)
    return [
        Request(f"{tag}-{i}", prompt(i + 1, prompt_length), sampling, adapter)
        for i, adapter in enumerate(adapters)
    ]


def rate(engine: Engine, adapters: Sequence[str | None], prompt_length: int, new: int) -> float:
    """Output tokens per second of streams that start together."""
    for request in requests("r", adapters, prompt_length, new):
        engine.add(request)
    started = time.perf_counter()
    return drain(engine) / (time.perf_counter() - started)


def drain(engine: Engine) -> int:
    """Step until nothing is left; how many tokens came."""
    tokens = 0
    while engine.load:
        tokens += sum(len(output.tokens) for output in engine.step())
    return tokens
