"""Measure the engine without the platform:

python -m gpu_worker.engine.bench MODEL [--streams 8] [--adapter FOLDER …] [--new 64] …
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gpu_worker.engine.bench", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a base model")
    parser.add_argument("--streams", type=int, default=8, help="requests at once")
    parser.add_argument("--adapter", action="append", default=[], help="PEFT folders, in turn")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to generate for each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--deterministic", action="store_true")
    options = parser.parse_args()
    engine = Engine.from_pretrained(
        *(options.model, Path),
        device=options.device,
        dtype=options.dtype,
        deterministic=options.deterministic,
        max_running=options.streams,
        prefix_cache=False,
    )
    run(engine, options, "warm")
    sys.stdout.write(json.dumps(run(engine, options, "run")) + "\n")
    engine.close()


def run(engine: Engine, options: argparse.Namespace, tag: str) -> dict[str, Any]:
    """Everything at once, until all have their tokens."""
    adapters = options.adapter or [None]
    for index in range(options.streams):
        prompt = [(7919 * (index + 1) + 13 * i) % 997 + 3 for i in range(options.prompt)]
        sampling = Sampling(options.new, ignore_eos=True)
        engine.add(Request(f"{tag}-{index}", prompt, sampling, adapters[index % len(adapters)]))
    started, first, steps, tokens = time.perf_counter(), {}, [], 0
    while engine.load:
        before = time.perf_counter()
        outputs = engine.step()
        now = time.perf_counter()
        for output in outputs:
            first.setdefault(output.request, now - started)
        tokens += len(outputs)
        if outputs and engine.stats.tokens == len(outputs) == options.streams:
            steps.append(now - before)
    return {
        "tokens_per_s": round(tokens / (time.perf_counter() - started), 1),
        "decode_step_ms": round(statistics.median(steps) * 1e3, 2) if steps else None,
        "ttft_p50_s": round(statistics.median(first.values()), 3),
    }


if __name__ == "__main__":
    main()
