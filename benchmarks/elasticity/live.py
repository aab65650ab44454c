"""`python -m benchmarks.elasticity.live [--seed N]`: two deployments on this machine go 0 → 2 → 0
under load, while the scaler is killed at a random moment and a change is rolled out.

Writes `results/elasticity_live.json` and a picture of backlog, replicas and statuses over time.
"""

import argparse
import json
import random
import signal
import sqlite3
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import matplotlib
import psutil

from benchmarks.cold_start import connect, platform
from benchmarks.report import RESULTS, publish
from benchmarks.workload import small_model
from loraplex.broker.connection import connect as connect_redis
from loraplex.broker.scaler import ScalerBroker
from loraplex.keys import Lane
from loraplex.store.models import DEMO_MODEL

LOAD_S = 60.0
CLIENTS = {"chat": 12, "code": 10}
OUTPUT_TOKENS = {"chat": 200, "code": 120}
SHARE = 4  # requests that are one replica's: so that this machine's load is worth two
COOLDOWN_S = 15
SAMPLE_S = 0.25
STANDBY_WITHIN_S = 120.0


@dataclass(slots=True)
class Sample:
    at: float
    status: str
    waiting: int
    running: int
    ready: int
    starting: int


@dataclass(slots=True)
class Counts:
    sent: int = 0
    answered: int = 0
    failures: list[str] = field(default_factory=list)


def run(seed: int) -> dict[str, Any]:
    random_ = random.Random(seed)
    model = small_model()
    marks: dict[str, float] = {}
    counts = {name: Counts() for name in CLIENTS}
    samples: dict[str, list[Sample]] = {name: [] for name in CLIENTS}
    with tempfile.TemporaryDirectory() as scratch, platform(Path(scratch) / "home", model) as home:
        client = connect(home)
        for name in CLIENTS:
            body = {
                "name": name,
                "base_model": DEMO_MODEL,
                "max_replicas": 2,
                "scale_up_threshold": SHARE,
                "cooldown_time": COOLDOWN_S,
                "target_wait_s": 2,
            }
            client.post("/api/v1/deployments", json=body).raise_for_status()
        _wait(client, "standby")
        started = time.monotonic()
        loading, sampling = threading.Event(), threading.Event()
        threads = [threading.Thread(target=_sample, args=(home, samples, started, sampling))]
        for name, clients in CLIENTS.items():
            threads += [
                threading.Thread(target=_ask, args=(home, name, counts[name], loading))
                for _ in range(clients)
            ]
        for thread in threads:
            thread.start()
        for at, mark in sorted([(random_.uniform(5, 50), "scaler killed"), (30.0, "change")]):
            time.sleep(max(0.0, started + at - time.monotonic()))
            marks[mark] = round(time.monotonic() - started, 1)
            if mark == "change":
                body = {"engine": {"max_running": 24}}
                client.patch("/api/v1/deployments/chat", json=body).raise_for_status()
            else:
                _scaler(home).send_signal(signal.SIGKILL)
        time.sleep(max(0.0, started + LOAD_S - time.monotonic()))
        loading.set()
        for thread in threads[1:]:
            thread.join()
        _wait(client, "standby")
        while any(rows[-1].status != "standby" for rows in samples.values()):
            time.sleep(SAMPLE_S)
        sampling.set()
        threads[0].join()
        changed = client.get("/api/v1/deployments/chat").json()
    return {
        "seed": seed,
        "marks_s": marks,
        "requests": sum(c.sent for c in counts.values()),
        "lost": sum(c.sent - c.answered for c in counts.values()),
        "failures": [f for c in counts.values() for f in c.failures],
        "most_replicas": {name: max(s.ready for s in rows) for name, rows in samples.items()},
        "replicas_at_end": {name: rows[-1].ready for name, rows in samples.items()},
        "revision": [changed["revision"], changed["change"]],
        "statuses": {name: _changes(rows) for name, rows in samples.items()},
        "samples": {name: [asdict(s) for s in rows] for name, rows in samples.items()},
    }


def _ask(home: Path, name: str, counts: Counts, stop: threading.Event) -> None:
    client = connect(home)
    while not stop.is_set():
        body = {
            "model": name,
            "prompt": f"A story about number {random.randint(0, 999)}:",
            "max_tokens": OUTPUT_TOKENS[name],
            "ignore_eos": True,
        }
        counts.sent += 1
        try:
            answer = client.post("/v1/completions", json=body)
            answer.raise_for_status()
            assert answer.json()["usage"]["completion_tokens"] == OUTPUT_TOKENS[name]
            counts.answered += 1
        except (httpx.HTTPError, AssertionError) as failed:
            counts.failures.append(f"{name}: {failed}")


def _sample(
    home: Path, samples: dict[str, list[Sample]], started: float, stop: threading.Event
) -> None:
    record = json.loads((home / "platform.json").read_text())
    broker = ScalerBroker(connect_redis(record["redis_url"]), "observer")
    database = sqlite3.connect(home / "loraplex.db", timeout=10)
    while not stop.wait(SAMPLE_S):
        at = round(time.monotonic() - started, 2)
        deployments = database.execute("SELECT name, id, base_model, status FROM deployment")
        rows = {name: (Lane(model, id_), status) for name, id_, model, status in deployments}
        seen = broker.observe([lane for lane, _ in rows.values()])
        for name, (lane, status) in rows.items():
            states = [
                state
                for (state,) in database.execute(
                    "SELECT state FROM replica WHERE deployment_id = ?", (lane.deployment_id,)
                )
            ]
            ready, starting = states.count("ready"), states.count("starting")
            found = seen[lane]
            samples[name].append(Sample(at, status, found.waiting, found.running, ready, starting))


def _wait(client: httpx.Client, status: str) -> None:
    deadline = time.monotonic() + STANDBY_WITHIN_S
    while time.monotonic() < deadline:
        rows = client.get("/api/v1/deployments").json()["data"]
        if all(row["status"] == status for row in rows):
            return
        time.sleep(0.2)
    raise TimeoutError(f"not all are {status}: {rows}")


def _scaler(home: Path) -> psutil.Process:
    record = json.loads((home / "platform.json").read_text())
    return psutil.Process(next(p["pid"] for p in record["processes"] if p["name"] == "scaler"))


def _changes(rows: list[Sample]) -> list[str]:
    found: list[str] = []
    for row in rows:
        if not found or found[-1] != row.status:
            found.append(row.status)
    return found


def _spans(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Statuses one after the other: which, from when, until when."""
    found: list[tuple[str, float, float]] = []
    for first, second in pairwise(rows):
        if found and found[-1][0] == first["status"]:
            found[-1] = (*found[-1][:2], second["at"])
        else:
            found.append((first["status"], first["at"], second["at"]))
    return found


def draw(result: dict[str, Any], file: Path) -> None:
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "loraplex"
    from matplotlib import pyplot

    shades = {
        "standby": "white",
        "initializing": "#fff2cc",
        "ready": "#e2f0d9",
        "updating": "#ddebf7",
    }
    figure, axes = pyplot.subplots(2, len(CLIENTS), figsize=(12, 5), sharex=True, squeeze=False)
    for column, (name, rows) in enumerate(result["samples"].items()):
        at = [row["at"] for row in rows]
        load, replicas = axes[0][column], axes[1][column]
        load.stackplot(
            at,
            [row["running"] for row in rows],
            [row["waiting"] for row in rows],
            labels=["running", "waiting"],
            colors=["#9dc3e6", "#f4b183"],
        )
        replicas.step(at, [row["ready"] for row in rows], where="post", label="ready")
        replicas.step(at, [row["starting"] for row in rows], ":", where="post", label="starting")
        for axis in (load, replicas):
            for status, start, end in _spans(rows):
                axis.axvspan(start, end, color=shades.get(status, "#f8cbad"), lw=0, zorder=0)
            for mark, when in result["marks_s"].items():
                axis.axvline(when, color="#c00000", lw=0.8, ls="--")
                axis.text(when, axis.get_ylim()[1], mark, fontsize=7, rotation=90, va="top")
        load.set_title(f"{name}: requests", fontsize=9)
        replicas.set_title(f"{name}: replicas (shade: status)", fontsize=9)
        load.legend(fontsize=7)
        replicas.legend(fontsize=7)
        replicas.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elasticity.live")
    parser.add_argument("--seed", type=int, default=20261125)
    result = run(parser.parse_args().seed)
    RESULTS.mkdir(exist_ok=True)
    draw(result, RESULTS / "elasticity_live.svg")
    samples = result.pop("samples")
    result["duration_s"] = next(iter(samples.values()))[-1]["at"]
    publish("elasticity_live", result, ["torch", "redis"], psutil.getloadavg()[0], save=True)


if __name__ == "__main__":
    main()
