"""From Standby to the first token, over the floor of mapping the weights and one prefill.

The platform is the real one (`loraplex up`), with its defaults but for a short cooldown. A round
waits until the deployment stands by and its replica is gone, sends one streamed completion over
HTTP, and takes the time until its first text. `spawn_s` … `first_token_s`: medians of the split
that the replicas log.

The floor, in the same round: this process, which has imported everything and whose threads are
awake, maps the model's safetensors anew and touches every page, then an engine that has been warm
for long runs the prefill of the same prompt (same settings as the replica's, no prefix cache) up to
the sampled token. It builds no model, lays out no weight, and meets no HTTP, queue or process.
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors import safe_open

from benchmarks import report
from benchmarks.workload import prompt, small_model
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import Request, Sampling
from loraplex.embedded.ports import free_port
from loraplex.store.models import DEMO_MODEL

TOKENS = 64
ROUNDS, QUICK_ROUNDS = 9, 5
NAME = "cold"
_ETA = re.compile(r"about ([0-9.]+) s")
_SPLIT = re.compile(
    r"cold start: spawn ([0-9.]+) s, import ([0-9.]+) s, load ([0-9.]+) s, "
    r"first token ([0-9.]+) s"
)
_PARTS = ("spawn_s", "import_s", "load_s", "first_token_s")


def measure(quick: bool) -> dict[str, Any]:
    model = small_model()
    torch.set_num_threads(os.cpu_count() or 1)
    floor = Floor(model)
    starts: list[tuple[float, float | None]] = []
    floors: list[float] = []
    with tempfile.TemporaryDirectory() as scratch, platform(Path(scratch) / "home", model) as home:
        client = connect(home)
        deploy(client)
        cold_start(client)  # probes the model, fills the page cache: once a model, not once a start
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            starts.append(cold_start(client))
            wait_for_standby(client)
            floors.append(floor.measure())
        splits = read_splits(home / "logs" / "replicas")[1:]
    return result(starts, floors, splits)


class Floor:
    def __init__(self, model: Path) -> None:
        self._files = sorted(model.glob("*.safetensors"))
        self._engine = Engine.from_pretrained(model, prefix_cache=False)
        for _ in range(3):
            self._prefill()

    def measure(self) -> float:
        started = time.perf_counter()
        for file in self._files:
            with safe_open(file, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118
                    _touch(weights.get_tensor(name))
        self._prefill()
        return time.perf_counter() - started

    def _prefill(self) -> None:
        request = Request("floor", prompt(1, TOKENS), Sampling(8, ignore_eos=True))
        stream = self._engine.stream(request)
        next(output for output in stream if output.tokens)
        stream.close()  # type: ignore[attr-defined]


def _touch(tensor: torch.Tensor) -> None:
    """Read a byte of every page."""
    flat = tensor.reshape(-1)
    flat[:: max(1, 4096 // flat.element_size())].sum()


@contextlib.contextmanager
def platform(home: Path, model: Path, **settings: str) -> Iterator[Path]:
    """Up in a home of its own; nothing is left at the end."""
    home.mkdir()
    (home / "models").symlink_to(model.parent)
    own = {"LORAPLEX_HOME": str(home), "LORAPLEX_PORT": str(free_port())}
    environment = os.environ | own | settings
    command = [sys.executable, "-m", "loraplex.cli.app"]
    quiet: dict[str, Any] = {"env": environment, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run([*command, "up", "--detach", "--no-demo"], **quiet)
    try:
        yield home
    finally:
        subprocess.run([*command, "down"], **quiet)


def connect(home: Path) -> httpx.Client:
    facts = json.loads((home / "platform.json").read_text())
    headers = {"authorization": f"Bearer {facts['api_key']}"}
    return httpx.Client(base_url=facts["url"], headers=headers, timeout=180)


def deploy(client: httpx.Client) -> None:
    body = {"name": NAME, "base_model": DEMO_MODEL, "cooldown_time": 1}
    client.post("/api/v1/deployments", json=body).raise_for_status()
    wait_for_standby(client)


def wait_for_standby(client: httpx.Client) -> None:
    while True:
        deployment = client.get(f"/api/v1/deployments/{NAME}").json()
        if deployment["status"] == "standby" and not deployment["replicas"]:
            time.sleep(1.0)  # its process ends, the warm parent looks around
            return
        time.sleep(0.1)


def cold_start(client: httpx.Client) -> tuple[float, float | None]:
    """Seconds to the first text, and how far the first estimate was from it, as a share of it."""
    wait_for_standby(client)
    body = {
        "model": NAME,
        "prompt": prompt(1, TOKENS),
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
    }
    started = time.perf_counter()
    ready_at: float | None = None
    first = 0.0
    with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            now = time.perf_counter() - started
            if line.startswith(":") and ready_at is None and (eta := _ETA.search(line)):
                ready_at = now + float(eta[1])
            if not first and line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                first = now if choices and choices[0]["text"] else 0.0
    return first, None if ready_at is None else abs(ready_at - first) / first


def read_splits(logs: Path) -> list[list[float]]:
    """Of the replicas, in the order of their starts."""
    files = sorted(logs.glob("*.log"), key=lambda file: file.stat().st_mtime)
    found = [_SPLIT.search(file.read_text()) for file in files]
    return [[float(part) for part in each.groups()] for each in found if each is not None]


def result(
    starts: list[tuple[float, float | None]], floors: list[float], splits: list[list[float]]
) -> dict[str, Any]:
    first = statistics.median(seconds for seconds, _ in starts)
    floor = statistics.median(floors)
    parts = dict(zip(_PARTS, map(statistics.median, zip(*splits, strict=True)), strict=True))
    errors = [error for _, error in starts if error is not None]
    rest = first - sum(parts.values())
    report.table(
        f"Standby to first token, median of {len(starts)} starts",
        ("", "ms"),
        [
            *((name.removesuffix("_s"), seconds * 1e3) for name, seconds in parts.items()),
            ("request to order, token to client", rest * 1e3),
            ("all", first * 1e3),
            ("floor", floor * 1e3),
        ],
    )
    return {
        "standby_to_first_token_s": round(first, 3),
        "floor_s": round(floor, 3),
        "ratio_to_floor": round(first / floor, 2),
        # Of the best round each: what a machine that others use, too, doesn't disturb.
        "ratio_of_best": round(min(seconds for seconds, _ in starts) / min(floors), 2),
        **{name: round(seconds, 3) for name, seconds in parts.items()},
        "rest_s": round(rest, 3),
        "eta_error_p50": round(statistics.median(errors), 2) if errors else None,
        "all_s": [round(seconds, 3) for seconds, _ in starts],
        "floors_s": [round(seconds, 3) for seconds in floors],
    }


if __name__ == "__main__":
    report.main("cold_start", measure, ("torch", "transformers"))
