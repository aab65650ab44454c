"""Decode steps of random models in the shape of known ones, against the floor: every byte of
weights (but for the input embedding, of which a step reads some rows) and of the KV cache read
once, at the memory's achievable bandwidth."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.kernels import seconds_of
from benchmarks.workload import make_adapters
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling
from gpu_worker.engine.sampling import Sampled

ACHIEVABLE = {"H200": 4.3e12, "H100 80GB HBM3": 3.0e12}  # bytes/s; of others a copy tells it
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
    prompt: int = 1024  # a quarter of it beyond 64 streams: the prompts would take minutes
    steps: int = 48
    rounds: int = 3

    def context(self, batch: int) -> int:
        return self.prompt if batch <= 64 else self.prompt // 4


FULL = Plan((1, 16, 64, 256), (0, 8, 64))
QUICK = Plan((1, 64), (0, 8, 64), steps=24, rounds=1)


def make_model(config: dict[str, Any], folder: Path, device: torch.device) -> Path:
    with torch.device(device):
        made = LlamaConfig(**config, max_position_embeddings=16384, dtype=torch.bfloat16)
        model = LlamaForCausalLM(made).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def measure(
    config: dict[str, Any], folder: Path, device: str, dtype: str, plan: Plan
) -> dict[str, dict[str, float]]:
    """By batch: `base_ms`, `floor_ms`, `over_floor`, `overhead_N` of N adapters over base,
    `sampled_ms` of base steps with temperature and top-p, and `host_share` of a base step: what
    the host does besides waiting."""
    most, kinds = max(plan.batches), max(plan.adapters)
    on = torch.device("cuda" if device == "cuda" else "cpu")
    model = make_model(config, folder / "model", on)
    adapters = [str(p) for p in make_adapters(model, folder, kinds, distinct=2)]
    engine = Engine.from_pretrained(
        model,
        **{"device": device, "dtype": dtype, "max_running": most, "max_adapters": kinds},
        **{"max_step_tokens": 4096, "kv_cache_gib": None if device == "cuda" else 0.01},
        adapter_cache_gib=30,  # prompts are cached: later rounds don't compute them again
    )
    for name in adapters:  # all resident before anything is measured
        engine.generate([Request(name, [1, 2], Sampling(2, ignore_eos=True), name)])
    weights = sum(f.stat().st_size for f in model.glob("*.safetensors"))
    if not config.get("tie_word_embeddings"):
        weights -= 2 * config["vocab_size"] * config["hidden_size"]
    results = {}
    for batch in plan.batches:
        cases = {f"overhead_{n}": (adapters[:n], 0.0) for n in plan.adapters if n <= batch}
        cases["sampled"] = ([], 0.8)
        seconds: dict[str, list[Step]] = {name: [] for name in cases}
        for round_ in range(plan.rounds + 1):  # the first captures graphs
            for name, (chosen, temperature) in cases.items():
                step = measure_step(engine, chosen, batch, plan, temperature)
                if round_:
                    seconds[name].append(step)
        walls = {n: statistics.median(s.wall for s in steps) for n, steps in seconds.items()}
        base = walls.pop("overhead_0")
        host = statistics.median(s.host for s in seconds["overhead_0"])
        context = batch * (plan.context(batch) + plan.steps / 2)
        floor = (weights + context * engine.kv_bytes_per_token) / bandwidth(on)
        results[str(batch)] = {
            "base_ms": round(base * 1e3, 3),
            "floor_ms": round(floor * 1e3, 3),
            "over_floor": round(base / floor, 3),
            "host_share": round(host / base, 3),
            "sampled_ms": round(walls.pop("sampled") * 1e3, 3),
            **{name: round(wall / base - 1, 4) for name, wall in walls.items()},
        }
    engine.close()
    return results


class Step(NamedTuple):
    """Median seconds from step to step while all streams decode, and the host's work in them."""

    wall: float
    host: float


def measure_step(
    engine: Engine, adapters: list[str], batch: int, plan: Plan, temperature: float
) -> Step:
    for index in range(batch):
        length = plan.context(batch)
        prompt = [(7919 * index + 13 * i) % engine.vocabulary for i in range(length)]
        adapter = adapters[index % len(adapters)] if adapters else None
        sampling = Sampling(plan.steps, index, temperature, top_p=0.95, ignore_eos=True)
        engine.add(Request(f"{index}", prompt, sampling, adapter))
    waited = 0.0
    read = Sampled.read

    def timed(self: Sampled) -> Any:
        nonlocal waited
        started = time.perf_counter()
        result = read(self)
        waited += time.perf_counter() - started
        return result

    Sampled.read = timed  # type: ignore[method-assign]
    steps = []
    before = time.perf_counter()
    try:
        while engine.load:
            waited = 0.0
            outputs = engine.step()
            now = time.perf_counter()
            if engine.stats.tokens == len(outputs) == batch:
                steps.append(Step(now - before, now - before - waited))
            before = now
    finally:
        Sampled.read = read  # type: ignore[method-assign]
    return Step(*(statistics.median(each) for each in zip(*steps, strict=True)))


def bandwidth(device: torch.device) -> float:
    """Bytes per second that memory can give."""
    if device.type != "cuda":
        return 1e10
    name = torch.cuda.get_device_name(device)
    known = next((speed for gpu, speed in ACHIEVABLE.items() if gpu in name), None)
    if known is not None:
        return known
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / seconds_of(lambda: target.copy_(source), device)
