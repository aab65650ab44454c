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
from gpu_worker.engine.request import EngineError, ModelRefused, Request, Sampling


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gpu_worker.engine.bench", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a base model")
    parser.add_argument("--streams", type=_positive, default=8, help="requests at once")
    parser.add_argument(
        *("--adapter", "-a"), action="append", default=[], help="a PEFT folder; may be repeated"
    )
    parser.add_argument("--prompt", type=_positive, default=64, help="tokens of each prompt")
    parser.add_argument("--new", type=_positive, default=64, help="tokens to generate for each")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--deterministic", action="store_true")
    options = parser.parse_args()
    try:
        with Engine.from_pretrained(
            *(options.model, Path),
            device=options.device,
            dtype=options.dtype,
            deterministic=options.deterministic,
            max_running=options.streams,
            prefix_cache=False,
        ) as engine:
            if options.prompt + options.new > engine.capacity:
                parser.error(f"--prompt and --new: together at most {engine.capacity} tokens")
            run(engine, options, "warm")
            sys.stdout.write(json.dumps(run(engine, options, "run")) + "\n")
    except (ModelRefused, EngineError) as refused:
        sys.exit(f"error: {refused}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def run(engine: Engine, options: argparse.Namespace, tag: str) -> dict[str, Any]:
    """Everything at once, until all have their tokens."""
    adapters = options.adapter or [None]
    for index in range(options.streams):
        prompt = [(7919 * (index + 1) + 13 * i) % engine.vocabulary for i in range(options.prompt)]
        sampling = Sampling(options.new, ignore_eos=True)
        engine.add(Request(f"{tag}-{index}", prompt, sampling, adapters[index % len(adapters)]))
    started, first, steps, tokens = time.perf_counter(), {}, [], 0
    while engine.load:
        before = time.perf_counter()
        outputs = engine.step()
        now = time.perf_counter()
        for output in outputs:
            if output.error is not None:
                raise output.error
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
