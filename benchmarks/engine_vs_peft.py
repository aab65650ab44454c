"""Output tokens per second against transformers + PEFT's mixed-adapter `generate`.

PEFT runs a batch whose rows name their adapters (`adapter_names`), the only way that it has to mix
them. Each stream has an adapter of its own (r=16, every linear layer), float32 on both sides.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks import report
from benchmarks.workload import make_adapters, prompt, rate, small_model
from gpu_worker.engine.engine import Engine

PROMPT, NEW = 64, 64


def measure(quick: bool) -> dict[str, Any]:
    streams = (4, 16) if quick else (1, 8, 16)
    new = 24 if quick else NEW
    model = small_model()
    with tempfile.TemporaryDirectory() as scratch:
        adapters = make_adapters(model, Path(scratch), max(streams))
        engine = Engine.from_pretrained(model, dtype="float32", prefix_cache=False)
        peft = load_peft(model, adapters)
        rates: dict[int, dict[str, float]] = {}
        for count in streams:
            names = [str(path) for path in adapters[:count]]

            def ours(names: Sequence[str] = names) -> float:
                return rate(engine, names, PROMPT, new)

            def theirs(count: int = count) -> float:
                return peft_rate(peft, count, new)

            ours()  # adapters in memory, threads awake
            rates[count], _ = report.median_rounds({"ours": ours, "peft": theirs}, 3)
        engine.close()
    ratio = {str(n): round(r["ours"] / r["peft"], 2) for n, r in rates.items()}
    report.table(
        "Output tokens/s, each stream its own adapter",
        ("streams", "ours", "transformers + PEFT", "ratio"),
        [(n, r["ours"], r["peft"], ratio[str(n)]) for n, r in rates.items()],
    )
    return {
        "ratio": ratio,
        "ours": {str(n): round(r["ours"], 1) for n, r in rates.items()},
        "peft": {str(n): round(r["peft"], 1) for n, r in rates.items()},
    }


def load_peft(model: Path, adapters: list[Path]) -> Any:
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, adapters[0], adapter_name="0")
    for index, path in enumerate(adapters[1:], 1):
        peft.load_adapter(path, adapter_name=str(index))
    return peft.eval()


@torch.inference_mode()
def peft_rate(peft: Any, count: int, new: int) -> float:
    ids = torch.tensor([prompt(i + 1, PROMPT) for i in range(count)])
    started = time.perf_counter()
    peft.generate(
        input_ids=ids,
        adapter_names=[str(i) for i in range(count)],
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
    )
    return count * new / (time.perf_counter() - started)


if __name__ == "__main__":
    report.main("engine_vs_peft", measure, ("torch", "transformers", "peft"))
