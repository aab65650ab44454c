"""How far the fast path is from giving the same tokens in any company, and what `deterministic`
costs.

Each request is computed alone, and again among the others with a small step budget, which splits
prompts. `differ_fast`, `differ_deterministic`: shares of requests with another token in their
output; `logits_fast`: largest change of a chosen token's log-probability before the first such.
`prompt_ratio`, `decode_ratio`: throughput of deterministic over fast.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.workload import prompt, rate, requests, small_model
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling

Found = dict[str, list[tuple[int, float]]]  # tokens and their log-probabilities, by request


def measure(quick: bool) -> dict[str, Any]:
    model = small_model()
    modes = {"fast": False, "deterministic": True}
    result: dict[str, Any] = {}
    for name, deterministic in modes.items():
        make = partial(_engine, model, deterministic)
        differ, change = _compare(make, 24 if quick else 96)
        result |= {f"differ_{name}": differ, f"logprobs_{name}": change}
    engines = {name: _engine(model, deterministic) for name, deterministic in modes.items()}
    measures: dict[str, Callable[[], float]] = {}
    for name, engine in engines.items():
        measures[f"{name}, prompts"] = partial(_prompts_s, engine)
        measures[f"{name}, decode"] = partial(rate, engine, [None] * 8, 16, 64)
    medians, _ = report.median_rounds(measures, 3 if quick else 5)
    for engine in engines.values():
        engine.close()
    result["prompt_ratio"] = round(medians["fast, prompts"] / medians["deterministic, prompts"], 3)
    result["decode_ratio"] = round(medians["deterministic, decode"] / medians["fast, decode"], 3)
    report.table("Fast and deterministic", ("", ""), list(result.items()))
    return result


def _engine(model: Path, deterministic: bool, **config: Any) -> Engine:
    return Engine.from_pretrained(model, deterministic=deterministic, prefix_cache=False, **config)


def _compare(make: Callable[..., Engine], count: int) -> tuple[float, float]:
    """Share of requests with other tokens in company, and the largest change before."""
    chance = random.Random(0)
    lengths = [chance.choice((20, 90, 200)) for _ in range(count)]
    sampling = Sampling(48, ignore_eos=True, logprobs=0)
    asked = [Request(str(i), prompt(i + 1, n), sampling) for i, n in enumerate(lengths)]
    with make() as alone:
        expected = {r.id: _run(alone, [r])[r.id] for r in asked}
    with make(max_step_tokens=48, max_running=16) as company:
        found = _run(company, asked)
    others, worst = 0, 0.0
    for name, tokens in expected.items():
        for (token, logprob), (other, near) in zip(tokens, found[name], strict=True):
            if token != other:
                others += 1
                break
            worst = max(worst, abs(logprob - near))
    return round(others / count, 4), worst


def _run(engine: Engine, asked: list[Request]) -> Found:
    for request in asked:
        engine.add(request)
    found: Found = {request.id: [] for request in asked}
    while engine.load:
        for output in engine.step():
            for token, known in zip(output.tokens, output.logprobs or (), strict=True):
                found[output.request].append((token, known.chosen))
    return found


def _prompts_s(engine: Engine) -> float:
    """Seconds for eight prompts of 256 tokens."""
    for request in requests("p", [None] * 8, 256, 1):
        engine.add(request)
    started = time.perf_counter()
    while engine.load:
        engine.step()
    return time.perf_counter() - started


if __name__ == "__main__":
    report.main("engine_deterministic", measure, ("torch", "transformers"))
