"""What fine-tuning brings, what it costs beside a bare script, and how soon its end can be asked.

`exact_match_base`, `exact_match_adapter`: of held-out orders (`task.py`), greedy, through the real
platform. `ratio_to_bare_trainer`: training tokens/s of `gpu_worker.training` over those of PEFT and
Trainer alone (`bare.py`), same rows and steps, alternating. `servable_after_s_p50`: from a job's
end to the first token of its adapter, on a warm replica, asked as soon as the job says so.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import psutil

from benchmarks import report
from benchmarks.cold_start import connect, platform
from benchmarks.finetune.task import rows
from benchmarks.workload import small_model
from gpu_worker.training.config import METRICS, TRAIN, TrainingConfig
from loraplex.store.models import DEMO_MODEL

_ENDED = ("succeeded", "failed", "cancelled")
_AT_ONCE = 8
_MODEL = small_model()
_PROGRAMS = {"ours": "gpu_worker.training", "bare": "benchmarks.finetune.bare"}


def measure(quick: bool) -> dict[str, Any]:
    learned, held_out = rows(160 if quick else 320, 24 if quick else 100)
    speeds = _speeds(learned, steps=6 if quick else 12, rounds=1 if quick else 3)
    with tempfile.TemporaryDirectory() as scratch, platform(Path(scratch) / "home", _MODEL) as home:
        client = _client(home)
        base = _exact_match(client, "served", held_out)
        job, peak_gib = _train(client, learned, "orders", epochs=3)
        adapter = _exact_match(client, f"served:{job.fine_tuned_model}", held_out)
        waits = [_servable(client, learned[:8], n) for n in range(3 if quick else 9)]
    minutes = (job.finished_at - job.created_at) / 60
    report.table(
        f"{len(learned)} rows, {len(held_out)} held out",
        ("", "exact match", "minutes", "peak GiB", "trained tokens"),
        [("base", base, "", "", ""), ("adapter", adapter, minutes, peak_gib, job.trained_tokens)],
    )
    return {
        "exact_match_base": round(base, 3),
        "exact_match_adapter": round(adapter, 3),
        "ratio_to_bare_trainer": round(speeds["ours"] / speeds["bare"], 3),
        "servable_after_s_p50": round(statistics.median(waits), 3),
        "steps_s": {name: round(speed, 1) for name, speed in speeds.items()},
        "minutes": round(minutes, 2),
        "peak_gib": round(peak_gib, 2),
        "rows": len(learned),
    }


def _speeds(learned: list[dict[str, Any]], steps: int, rounds: int) -> dict[str, float]:
    """Medians, in steps a second: of the same tokens for both."""
    config = TrainingConfig(
        DEMO_MODEL, str(_MODEL), max_steps=steps, learning_rate=1e-3, device="cpu"
    )
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for name, program in (
            ("ours", "gpu_worker.training"),
            ("bare", "benchmarks.finetune.bare"),
        ):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                (folder / TRAIN).write_text("".join(json.dumps(row) + "\n" for row in learned))
                replace(config).write(folder)
                command = [sys.executable, "-m", program, str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(steps / _seconds(folder, done.stdout))
    return {name: statistics.median(each) for name, each in found.items()}


def _seconds(folder: Path, printed: str) -> float:
    """In the loop: the program's own reports, or what the bare one prints."""
    metrics = folder / METRICS
    if not metrics.exists():
        return float(json.loads(printed.splitlines()[-1])["seconds"])
    told = [json.loads(line) for line in metrics.read_text().splitlines()]
    return float(told[-1]["at"] - told[0]["at"])


def _client(home: Path) -> openai.OpenAI:
    """Of a platform with a replica that is ready."""
    facts = json.loads((home / "platform.json").read_text())
    body = {"name": "served", "base_model": DEMO_MODEL, "min_replicas": 1}
    with connect(home) as http:
        http.post("/api/v1/deployments", json=body).raise_for_status()
    return openai.OpenAI(
        base_url=f"{facts['url']}/v1", api_key=facts["api_key"], max_retries=20, timeout=300
    )


def _exact_match(client: openai.OpenAI, model: str, held_out: list[dict[str, Any]]) -> float:
    def right(row: dict[str, Any]) -> bool:
        *asked, wanted = row["messages"]
        answer = client.chat.completions.create(
            model=model, messages=asked, temperature=0, max_tokens=64
        )
        return (answer.choices[0].message.content or "").strip() == wanted["content"]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return sum(pool.map(right, held_out)) / len(held_out)


def _train(
    client: openai.OpenAI, learned: list[dict[str, Any]], repo: str, **lora: Any
) -> tuple[Any, float]:
    """The job, and the most memory that its process had, in GiB."""
    content = "".join(json.dumps(row) + "\n" for row in learned).encode()
    file = client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    job: Any = client.fine_tuning.jobs.create(
        model=DEMO_MODEL,
        training_file=file.id,
        suffix=repo,
        extra_body={"lora": {"learning_rate": 1e-3} | lora},
    )
    peak = 0
    while job.status not in _ENDED:
        for process in psutil.process_iter(["cmdline"]):
            if job.id in " ".join(process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    peak = max(peak, process.memory_info().rss)
        time.sleep(0.05)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    return job, peak / 2**30


def _servable(client: openai.OpenAI, few: list[dict[str, Any]], number: int) -> float:
    """Seconds from the job's last word to the first token."""
    job, _ = _train(client, few, f"quick-{number}", max_steps=1, target_modules=["q_proj"])
    since = time.monotonic()
    stream = client.chat.completions.create(
        model=f"served:{job.fine_tuned_model}",
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=1,
        stream=True,
    )
    next(iter(stream))
    for _ in stream:
        pass
    return time.monotonic() - since


if __name__ == "__main__":
    report.main("finetune", measure, ["torch", "transformers", "peft"])
