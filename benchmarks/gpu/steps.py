"""Decode steps of random models in the shape of known ones, against the floor: every byte of
weights and KV cache read once, at the memory's achievable bandwidth."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.workload import make_adapters
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling

ACHIEVABLE = {"H200": 4.3e12, "H100": 3.0e12}  # bytes/s
SHAPES: dict[str, dict[str, Any]] = {
    "8B": {
        **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    },
    "1B": {
        **{"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
        **{"head_dim": 64, "tie_word_embeddings": True},
    },
}
TINY: dict[str, Any] = {
    **{"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 97},
    **{"num_attention_heads": 2, "num_key_value_heads": 1},
}


@dataclass(frozen=True, slots=True)
class Plan:
    batches: tuple[int, ...]
    adapters: tuple[int, ...]  # numbers of different ones in a batch; 0 is the base alone
    prompt: int = 256
    steps: int = 48
    rounds: int = 3


FULL = Plan((1, 16, 64, 256), (0, 8, 64))
QUICK = Plan((1, 64), (0, 8, 64), steps=24, rounds=1)


def make_model(config: dict[str, Any], folder: Path, device: torch.device) -> Path:
    with torch.device(device):
        made = LlamaConfig(**config, max_position_embeddings=4096, dtype=torch.bfloat16)
        model = LlamaForCausalLM(made).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def measure(
    config: dict[str, Any], folder: Path, device: str, dtype: str, plan: Plan
) -> dict[str, dict[str, float]]:
    """By batch: `base_ms`, `floor_ms`, `over_floor`, and `overhead_N` of N adapters over base."""
    most, kinds = max(plan.batches), max(plan.adapters)
    on = torch.device("cuda" if device == "cuda" else "cpu")
    model = make_model(config, folder / "model", on)
    adapters = [str(p) for p in make_adapters(model, folder, kinds, distinct=2)]
    engine = Engine.from_pretrained(
        model,
        **{"device": device, "dtype": dtype, "max_running": most, "max_adapters": kinds},
        **{"max_step_tokens": 4096, "kv_cache_gib": 20 if device == "cuda" else 0.01},
        adapter_cache_gib=30,
        prefix_cache=False,
    )
    for name in adapters:  # all resident before anything is measured
        engine.generate([Request(name, [1, 2], Sampling(2, ignore_eos=True), name)])
    weights = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    results = {}
    for batch in plan.batches:
        seconds: dict[int, list[float]] = {}
        for round_ in range(plan.rounds + 1):  # the first captures graphs
            for different in (n for n in plan.adapters if n <= batch):
                step = step_s(engine, adapters[:different], batch, plan)
                if round_:
                    seconds.setdefault(different, []).append(step)
        medians = {n: statistics.median(s) for n, s in seconds.items()}
        context = batch * (plan.prompt + plan.steps / 2)
        bytes_read = weights + context * engine.kv_bytes_per_token
        floor = bytes_read / _bandwidth(on)
        results[str(batch)] = {
            "base_ms": round(medians[0] * 1e3, 3),
            "floor_ms": round(floor * 1e3, 3),
            "over_floor": round(medians[0] / floor, 3),
            **{f"overhead_{n}": round(s / medians[0] - 1, 4) for n, s in medians.items() if n},
        }
    engine.close()
    return results


def step_s(engine: Engine, adapters: list[str], batch: int, plan: Plan) -> float:
    """Median time from step to step while all streams decode."""
    for index in range(batch):
        prompt = [(7919 * index + 13 * i) % engine.vocabulary for i in range(plan.prompt)]
        adapter = adapters[index % len(adapters)] if adapters else None
        sampling = Sampling(plan.steps, ignore_eos=True)
        engine.add(Request(f"{index}", prompt, sampling, adapter))
    times = []
    before = time.perf_counter()
    while engine.load:
        outputs = engine.step()
        now = time.perf_counter()
        if engine.stats.tokens == len(outputs) == batch:
            times.append(now - before)
        before = now
    return statistics.median(times)


def _bandwidth(device: torch.device) -> float:
    if device.type != "cuda":
        return 1e10
    name = torch.cuda.get_device_name(device)
    return next((speed for gpu, speed in ACHIEVABLE.items() if gpu in name), 3.0e12)
