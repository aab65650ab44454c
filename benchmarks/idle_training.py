"""Fine-tuning on the places that replicas leave over: what it brings, and what requests pay for it.

Simulated (two hours of bursts on a fleet of two places, the real reconciler): `idle_used`, the
share of the idle replica-seconds that were learned in; `added_wait_p50_s`, `added_wait_max_s`
against the same traffic without it. Live, a fleet of one place, alternating: the first token from
Standby with the place free (`free_place_s`) and with a training on it (`training_there_s`), and the
steps that were done twice because it gave way (`steps_again`).
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import httpx

from benchmarks import report
from benchmarks.cold_start import cold_start, connect, deploy, platform
from benchmarks.finetune.task import rows
from benchmarks.workload import small_model
from loraplex.store.models import DEMO_MODEL
from scheduler.law import decide
from scheduler.scaling import Scaling
from scheduler.simulator.traces import Arrival, Outcome, run
from scheduler.simulator.trainings import TrainingRow

_PLACES, _SECONDS = 2, 7200.0
_JOBS = "/v1/fine_tuning/jobs"


def measure(quick: bool) -> dict[str, Any]:
    found = _simulated() | _live(2 if quick else 5)
    report.table("Fine-tuning on idle places", ("", ""), [(k, v) for k, v in found.items()])
    return found


def _simulated() -> dict[str, Any]:
    random, arrivals, at = Random(1), list[Arrival](), 0.0
    while (at := at + random.expovariate(1 / 400)) < _SECONDS:
        size = random.choice((1, 20, 40))
        arrivals += [Arrival(at, random.expovariate(1 / 3)) for _ in range(size)]

    def serve(trainings: list[TrainingRow]) -> Outcome:
        scaling = Scaling(0, _PLACES, 60.0, 16)
        facts: dict[str, Any] = {"slots": 16, "cold_start_s": 20.0, "fleet": _PLACES}
        return run(*(decide, arrivals, _SECONDS), scaling=scaling, trainings=trainings, **facts)

    alone, endless = serve([]), [TrainingRow(f"ft-{n}", needs_s=1e9) for n in range(_PLACES)]
    beside = serve(endless)
    added = sorted(b - a for a, b in zip(alone.waits, beside.waits, strict=True))
    idle_s = _PLACES * _SECONDS - alone.replica_s
    return {
        "idle_used": round(sum(t.learned_s for t in endless) / idle_s, 3),
        "added_wait_p50_s": round(added[len(added) // 2], 2),
        "added_wait_max_s": round(added[-1], 2),
        "yields": sum(t.yields for t in endless),
    }


def _live(rounds: int) -> dict[str, Any]:
    model = small_model()
    free: list[float] = []
    there: list[float] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        platform(Path(scratch) / "home", model, LORAPLEX_FLEET='{"local": 1}') as home,
    ):
        client = connect(home)
        deploy(client)
        cold_start(client)  # probes the model, once
        job = ""
        for _ in range(rounds):
            free.append(cold_start(client)[0])
            job = _begin(client)
            _wait_until_it_learns(client, job)
            there.append(cold_start(client)[0])
            _wait_until_it_learns(client, job)
            again = _steps_again(client, job)
            client.post(f"{_JOBS}/{job}/cancel").raise_for_status()
    return {
        "free_place_s": round(statistics.median(free), 2),
        "training_there_s": round(statistics.median(there), 2),
        "steps_again": again,
        "all_s": [round(s, 2) for s in there],
    }


def _begin(client: httpx.Client) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows(64, 0)[0])
    sent = {"file": ("rows.jsonl", content.encode())}
    file = client.post("/v1/files", data={"purpose": "fine-tune"}, files=sent).json()["id"]
    lora = {"max_steps": 100_000, "checkpoints": 0}
    body = {"model": DEMO_MODEL, "training_file": file, "suffix": "idle", "lora": lora}
    return str(client.post(_JOBS, json=body).raise_for_status().json()["id"])


def _events(client: httpx.Client, job: str) -> list[dict[str, Any]]:
    """The oldest first."""
    found = client.get(f"{_JOBS}/{job}/events", params={"limit": 1000}).raise_for_status().json()
    return list(reversed(found["data"]))


def _wait_until_it_learns(client: httpx.Client, job: str) -> None:
    """Two steps more, since it last began."""
    while True:
        told = _events(client, job)
        last = max((n for n, e in enumerate(told) if e["message"].startswith("Begins")), default=-1)
        if last >= 0 and sum(e["type"] == "metrics" for e in told[last:]) >= 2:
            return
        time.sleep(0.2)


def _steps_again(client: httpx.Client, job: str) -> int:
    steps = [e["data"]["step"] for e in _events(client, job) if e["type"] == "metrics"]
    return len(steps) - len({*steps})


if __name__ == "__main__":
    report.main("idle_training", measure, ["torch", "transformers", "peft"])
