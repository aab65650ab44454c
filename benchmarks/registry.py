"""Registering a thousand adapters over HTTP, and looking at ten thousand.

`registration_ms_p50`, over that of writing the same bytes to two files with fsync
(`registration_over_write`); `disk_over_bytes`: what the store takes over the adapters' own bytes, a
tenth of which were registered twice; `list_page_ms_p95` (100 of 10,000), `list_all_ms_p95` (page by
page of 1,000), `show_ms_p95`, `models_ms_p95` (OpenAI's list, all of them); `first_token_ms_p50` of
adapters that were never asked before, over one that is resident (`first_token_over_resident`).
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import load, save
from sqlmodel import Session, select

from benchmarks import report
from benchmarks.cold_start import connect, platform
from benchmarks.workload import small_model
from loraplex.database import connect as connect_database
from loraplex.entities import Adapter, Repo
from loraplex.store.models import DEMO_MODEL
from loraplex.store.peft_checks import CONFIG, WEIGHTS

_REGISTERED, _LISTED = 1000, 10_000
_PIRATE = Path(__file__).parent.parent / "examples" / "adapters" / "pirate"


def measure(quick: bool) -> dict[str, Any]:
    count = 200 if quick else _REGISTERED
    with (
        tempfile.TemporaryDirectory() as scratch,
        platform(Path(scratch) / "home", small_model()) as home,
    ):
        client = connect(home)
        written = statistics.median(_write(Path(scratch) / f"{n}", n) for n in range(50))
        took = [_register(client, number) for number in range(count)]
        for number in range(0, count, 10):
            _register(client, number, again=True)
        size = sum(len(part) for part in _files(0))
        disk = sum(f.stat().st_size for f in (home / "adapters").rglob("*") if f.is_file())
        firsts, resident = _first_tokens(client, 5 if quick else 20)
        _fill(home, _LISTED)
        looks = {
            "list_page_ms_p95": _p95(lambda: _get(client, "/api/v1/adapters?limit=100")),
            "list_all_ms_p95": _p95(lambda: _list_all(client), 10),
            "show_ms_p95": _p95(lambda: _get(client, "/api/v1/adapters/r50/1")),
            "models_ms_p95": _p95(lambda: _get(client, "/v1/models"), 10),
        }
    registration = statistics.median(took)
    found = {
        "registration_ms_p50": round(registration * 1e3, 1),
        "registration_over_write": round(registration / written, 2),
        "disk_over_bytes": round(disk / (size * count), 3),
        **{name: round(seconds * 1e3, 1) for name, seconds in looks.items()},
        "first_token_ms_p50": round(statistics.median(firsts) * 1e3, 1),
        "first_token_over_resident": round(
            statistics.median(firsts) / statistics.median(resident), 2
        ),
        "registered": count,
        "listed": _LISTED,
    }
    report.table("Registry", ("", ""), list(found.items()))
    return found


def _files(number: int) -> tuple[bytes, bytes]:
    """`pirate` with other weights."""
    config = json.loads((_PIRATE / CONFIG).read_text()) | {"base_model_name_or_path": DEMO_MODEL}
    weights = load((_PIRATE / WEIGHTS).read_bytes())
    changed = {name: value * (1 + number * 1e-2) for name, value in weights.items()}
    return json.dumps(config).encode(), save(changed)


def _register(client: httpx.Client, number: int, *, again: bool = False) -> float:
    config, weights = _files(number)
    files = {"adapter_config": config, "adapter_model": weights}
    began = time.perf_counter()
    repo = f"again{number}" if again else f"r{number}"
    answer = client.post("/api/v1/adapters", data={"repo": repo}, files=files)
    took = time.perf_counter() - began
    assert answer.status_code == 201, answer.text
    return took


def _write(folder: Path, number: int) -> float:
    files = _files(number)
    began = time.perf_counter()
    folder.mkdir()
    for name, content in zip((CONFIG, WEIGHTS), files, strict=True):
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began


def _fill(home: Path, count: int) -> None:
    """Records up to so many, of contents that are there."""
    database = connect_database(f"sqlite:///{home / 'loraplex.db'}")
    with Session(database) as session:
        there = session.exec(select(Adapter)).all()
        for number in range(count - len(there)):
            like = there[number % len(there)].model_dump(exclude={"id", "repo"})
            session.add(Repo(tenant_id=like["tenant_id"], name=f"more{number}"))
            session.add(Adapter(**like, repo=f"more{number}"))
        session.commit()
    database.dispose()


def _get(client: httpx.Client, path: str) -> Any:
    return client.get(path).raise_for_status().json()


def _list_all(client: httpx.Client) -> None:
    path, seen = "/api/v1/adapters?limit=1000", 0
    while path:
        page = _get(client, path)
        seen += len(page["data"])
        last = page["data"][-1]["ref"]
        path = f"/api/v1/adapters?limit=1000&after={last}" if page["has_more"] else ""
    assert seen == _LISTED, seen


def _first_tokens(client: httpx.Client, count: int) -> tuple[list[float], list[float]]:
    """Of adapters that were never asked, and of one that was just asked, in turn."""
    body = {"name": "served", "base_model": DEMO_MODEL, "min_replicas": 1}
    client.post("/api/v1/deployments", json=body).raise_for_status()
    _ask(client, "r0/1")
    fresh, resident = [], []
    for number in range(1, count + 1):
        fresh.append(_ask(client, f"r{number}/1"))
        resident.append(_ask(client, "r0/1"))
    return fresh, resident


def _ask(client: httpx.Client, adapter: str) -> float:
    body = {"model": f"served:{adapter}", "prompt": "Where do you live?", "max_tokens": 1}
    while True:
        began = time.perf_counter()
        answer = client.post("/v1/completions", json=body)
        if answer.status_code == 200:
            return time.perf_counter() - began
        assert answer.status_code == 503, answer.text
        time.sleep(0.5)


def _p95(look: Callable[[], Any], times: int = 50) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        look()
        took.append(time.perf_counter() - began)
    return sorted(took)[int(0.95 * (times - 1))]


if __name__ == "__main__":
    report.main("registry", measure, ["fastapi", "sqlmodel", "safetensors"])
