"""What adapters cost on this machine's CPU, each against the same work without them.

- `overhead_8_at_8`: 8 streams with 8 adapters (r=16, every linear layer), decode steps, against
  8 base streams; `overhead_base_only`: base streams on an engine with 64 adapters in memory.
- `zipf_1000_of_resident`: throughput of 1,000 registered adapters under Zipf(1.0), 32 slots,
  against the same requests with every adapter resident.
- `ttft_p50_over_slots`: median time to first token with twice as many active adapters as slots,
  against all-resident.
"""

import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.workload import drain, make_adapters, prompt, requests, small_model
from gpu_worker.engine.blocks import blocks_for
from gpu_worker.engine.config import EngineConfig
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling


def measure(quick: bool) -> dict[str, Any]:
    model = small_model()
    with tempfile.TemporaryDirectory() as scratch:
        few = make_adapters(model, Path(scratch), 64)
        result = decode_overheads(model, few, rounds=3 if quick else 7)
        result |= many_adapters(model, Path(scratch), quick)
    return result


def decode_overheads(model: Path, adapters: list[Path], rounds: int) -> dict[str, Any]:
    """Decode steps alone: prompts are short and not in the measured time.

    The engine without LoRA is the same one with a decode program that was recorded without. Where
    a program's buffers lie in memory makes several percent, whatever it computes: so three of each
    kind are recorded, in turn, and adapters are compared with base streams of the same program.
    """
    engine = Engine.from_pretrained(model)
    names = [str(path) for path in adapters]
    for name in names:  # all in memory before anything is measured
        engine.generate([Request(name, [1, 2], Sampling(2, ignore_eos=True), name)])
    forward, rows = engine._forward, EngineConfig().max_running
    blocks = blocks_for(engine.context_length)
    pairs = [
        [forward.record_decode(rows, blocks, adapters=lora) for lora in (True, False)]
        for _ in range(3)
    ]
    base: list[str | None] = [None] * 8

    def step_s(program: Any, streams: Sequence[str | None]) -> float:
        forward.decode = program
        return decode_step_s(engine, streams)

    measures = {}
    for index, (lora, plain) in enumerate(pairs):
        measures |= {
            f"{index} without LoRA, base": partial(step_s, plain, base),
            f"{index} with LoRA, base": partial(step_s, lora, base),
            f"{index} with LoRA, 8 adapters": partial(step_s, lora, names[:8]),
            f"{index} with LoRA, 1 adapter": partial(step_s, lora, names[:1] * 8),
        }
    medians, _ = report.median_rounds(measures, rounds)
    engine.close()
    report.table(
        "A decode step of 8 streams", ("", "ms"), [(n, s * 1e3) for n, s in medians.items()]
    )

    def over(name: str, reference: str) -> float:
        ratios = [medians[f"{i} {name}"] / medians[f"{i} {reference}"] for i in range(3)]
        return round(statistics.median(ratios) - 1, 4)

    return {
        "overhead_8_at_8": over("with LoRA, 8 adapters", "with LoRA, base"),
        "overhead_1_at_8": over("with LoRA, 1 adapter", "with LoRA, base"),
        "overhead_base_only": over("with LoRA, base", "without LoRA, base"),
        "step_ms_base_8": round(medians["0 without LoRA, base"] * 1e3, 2),
    }


def decode_step_s(engine: Engine, adapters: Sequence[str | None], steps: int = 24) -> float:
    for request in requests("r", adapters, 16, steps + 4):
        engine.add(request)
    seconds = []
    while engine.load:
        started = time.perf_counter()
        outputs = engine.step()
        if engine.stats.tokens == len(outputs) == len(adapters):
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def many_adapters(model: Path, folder: Path, quick: bool) -> dict[str, Any]:
    registered = 200 if quick else 1000
    paths = [str(p) for p in make_adapters(model, folder, registered)]
    count = 64 if quick else 256
    chance = random.Random(0)
    weights = [1 / (rank + 1) for rank in range(registered)]
    # The first half warms the caches up; the second half counts.
    before, chosen = (chance.choices(paths, weights, k=count) for _ in range(2))
    everyone = sorted({*before, *chosen})
    rates = {}
    for name, slots, slab_gib in (
        ("all resident", len(everyone), 0.02 * len(everyone)),
        ("32 slots", 32, EngineConfig().adapter_cache_gib),
    ):
        engine = Engine.from_pretrained(model, max_adapters=slots, adapter_cache_gib=slab_gib)
        if name == "all resident":
            for path in everyone:
                engine.generate([Request(path, [1, 2], Sampling(1, ignore_eos=True), path)])
        throughput(engine, before)
        rates[name] = throughput(engine, chosen)
        engine.close()
    report.table(
        f"{registered} registered adapters, Zipf(1.0), {count} requests of 32 + 64 tokens",
        ("", "tokens/s"),
        list(rates.items()),
    )
    slow = {}
    for name, slots in (("all resident", 16), ("8 slots", 8)):
        engine = Engine.from_pretrained(model, max_adapters=slots)
        slow[name] = ttft_p50_s(engine, paths[:16], 48 if quick else 160)
        engine.close()
    report.table(
        "16 active adapters: median time to first token",
        ("", "s"),
        list(slow.items()),
    )
    return {
        "zipf_1000_of_resident": round(rates["32 slots"] / rates["all resident"], 4),
        "zipf_registered": registered,
        "ttft_p50_over_slots": round(slow["8 slots"] / slow["all resident"], 3),
    }


def throughput(engine: Engine, adapters: list[str]) -> float:
    """Output tokens per second; as many requests wait as run: their adapters are fetched."""
    waiting = [
        Request(str(i), prompt(i, 32), Sampling(64, ignore_eos=True), name)
        for i, name in enumerate(adapters)
    ]
    total, started = 0, time.perf_counter()
    while waiting or engine.load:
        while waiting and engine.load < 64:
            engine.add(waiting.pop(0))
        total += sum(len(output.tokens) for output in engine.step())
    return total / (time.perf_counter() - started)


def ttft_p50_s(engine: Engine, adapters: list[str], count: int) -> float:
    """Requests arrive at random, at about 70 % of what the machine can do."""
    chance = random.Random(1)
    for name in adapters:
        engine.generate([Request(name, [1, 2], Sampling(1, ignore_eos=True), name)])
    for request in requests("w", adapters[:8], 32, 32):
        engine.add(request)
    started = time.perf_counter()
    rate = 0.7 * 8 / (drain(engine) and time.perf_counter() - started)  # requests per second
    arrivals, at = [], 0.0
    for index in range(count):
        at += chance.expovariate(rate)
        name = adapters[chance.randrange(len(adapters))]
        arrivals.append((at, Request(str(index), prompt(index, 32), Sampling(32), name)))
    first: dict[str, float] = {}
    came = {request.id: when for when, request in arrivals}
    started = time.perf_counter()
    while arrivals or engine.load:
        now = time.perf_counter() - started
        while arrivals and arrivals[0][0] <= now:
            engine.add(arrivals.pop(0)[1])
        for output in engine.step():
            first.setdefault(output.request, time.perf_counter() - started)
        if arrivals and not engine.load:
            time.sleep(max(0, arrivals[0][0] - (time.perf_counter() - started)))
    return statistics.median(first[name] - came[name] for name in came)


if __name__ == "__main__":
    report.main("engine_lora_overhead", measure, ("torch", "transformers"))
