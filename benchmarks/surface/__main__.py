"""The whole HTTP surface, as strangers meet it.

`cases`, `failures`: Schemathesis' cases made from our own OpenAPI document, against a real API
process over a real Valkey, with a fake replica that answers; a failure is a 5xx other than 503 (not
now) and 504 (a deadline has passed).
`altered`, `unauthorised`: nearly right keys, and right keys with another tenant's objects.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from benchmarks import report
from benchmarks.delivery.processes import Processes
from benchmarks.environments import python_with
from benchmarks.model_store import model_store
from benchmarks.surface.altered import try_keys, try_objects

FOLDER = Path(__file__).parent
SCHEMATHESIS = "schemathesis==4.32.5"


def measure(quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="surface-") as folder:
        processes = Processes(Path(folder) / "home", model_store(), LORAPLEX_REQUEST_TIMEOUT_S="5")
        try:
            processes.replica("fake", 0, 32)
            url = f"http://127.0.0.1:{processes.ports['redis']}"
            altered = _altered(url, processes.key, 1_000 if quick else 10_000)
            cases = _schemathesis(url, processes.key, 5 if quick else 20)
        finally:
            processes.stop()
    return cases | altered


def _schemathesis(url: str, key: str, examples: int) -> dict[str, Any]:
    python = python_with(SCHEMATHESIS)
    command = [str(python.parent / "st"), "--config-file", str(FOLDER / "schemathesis.toml"), "run"]
    command += [f"{url}/openapi.json", "--header", f"Authorization: Bearer {key}"]
    command += ["--checks", "not_a_server_error", "--phases", "coverage,fuzzing"]
    command += ["--max-examples", str(examples), "--seed", "8", "--workers", "1", "--no-color"]
    command += ["--request-timeout", "30", "--continue-on-failure"]
    hooks = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(FOLDER)}
    with tempfile.TemporaryDirectory() as folder:  # it keeps what it found where it runs
        environment = os.environ | hooks
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
    found = re.search(r"(\d+) generated", done.stdout)
    assert found is not None, done.stdout + done.stderr
    failed = re.search(r"found (\d+) unique failures", done.stdout)
    errors = re.findall(r"Schema Error|Network Error|Runtime Error", done.stdout)
    if failed or errors:
        sys.stderr.write(done.stdout)
    operations = re.search(r"Tested: (\d+)", done.stdout)
    return {
        "operations": int(operations[1]) if operations else 0,
        "cases": int(found[1]),
        "failures": (int(failed[1]) if failed else 0) + len(errors),
    }


def _altered(url: str, operator: str, times: int) -> dict[str, Any]:
    random_ = random.Random(8)
    headers = {"authorization": f"Bearer {operator}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        other = _tenant(http, "other")
        owner = _tenant(http, "owner")
        paths = _objects(url, owner)
    keys = try_keys(url, owner, times // 2, random_)
    objects = try_objects(url, other, paths, times - times // 2, random_)
    for each in (*keys.let_in, *objects.let_in):
        sys.stderr.write(f"let in: {each}\n")
    return {
        "altered": keys.tried + objects.tried,
        "unauthorised": len(keys.let_in) + len(objects.let_in),
    }


def _tenant(http: httpx.Client, name: str) -> str:
    """Its admin key."""
    http.post("/api/v1/tenants", json={"name": name}).raise_for_status()
    body = {"name": "boss", "tenant": name, "scopes": ["admin"]}
    answer = http.post("/api/v1/keys", json=body).raise_for_status()
    key: str = answer.json()["key"]
    return key


def _objects(url: str, key: str) -> list[tuple[str, str]]:
    """One of each kind, of the tenant with this key: what another one may try."""
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
        body: dict[str, Any] = {"name": "private", "base_model": "org/model"}
        http.post("/api/v1/deployments", json=body).raise_for_status()
        hook = http.post("/api/v1/webhooks", json={"url": "https://example.com/hook"}).json()["id"]
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {}}
        file = {"file": ("a.jsonl", json.dumps(line).encode())}
        stored = http.post("/v1/files", data={"purpose": "batch"}, files=file).json()["id"]
        batch = {"input_file_id": stored, "endpoint": "/v1/completions", "completion_window": "24h"}
        made = http.post("/v1/batches", json=batch).json()["id"]
        own = http.get("/api/v1/keys").json()["data"][0]["id"]
        http.post("/api/v1/repos", json={"name": "private"}).raise_for_status()
        row = {"file": ("a.jsonl", b'{"text": "a"}')}
        data = http.post("/api/v1/datasets", data={"name": "private"}, files=row).json()["id"]
        fetched = http.post("/api/v1/imports", json={"source": "hub:org/private"}).json()["id"]
        wanted = {"model": "org/model", "training_file": "private", "suffix": "private"}
        trained = http.post("/v1/fine_tuning/jobs", json=wanted).json()["id"]
    deployment = "/api/v1/deployments/<private>"
    return [
        ("GET", deployment),
        ("DELETE", deployment),
        *(("POST", f"{deployment}/{verb}") for verb in ("stop", "start")),
        *(("GET", f"{deployment}/{what}") for what in ("events", "replicas", "explain")),
        ("GET", "/v2/deployments/<private>"),
        ("DELETE", "/v2/deployments/<private>"),
        ("GET", "/deployments/<private>/info"),
        ("GET", "/v1/models/<private>"),
        ("DELETE", f"/api/v1/webhooks/<{hook}>"),
        ("POST", f"/api/v1/webhooks/<{hook}>/ping"),
        ("GET", f"/api/v1/webhooks/<{hook}>/deliveries"),
        ("GET", f"/v1/files/<{stored}>"),
        ("GET", f"/v1/files/<{stored}>/content"),
        ("DELETE", f"/v1/files/<{stored}>"),
        ("GET", f"/v1/batches/<{made}>"),
        ("POST", f"/v1/batches/<{made}>/cancel"),
        *((verb, "/api/v1/repos/<private>") for verb in ("GET", "DELETE")),
        ("GET", "/v2/repos/<private>"),
        *((verb, f"/api/v1/datasets/<{data}>") for verb in ("GET", "DELETE")),
        ("GET", f"/api/v1/datasets/<{data}>/content"),
        ("GET", f"/v2/datasets/<{data}>/download-link"),
        ("GET", f"/api/v1/imports/<{fetched}>"),
        ("POST", f"/api/v1/imports/<{fetched}>/cancel"),
        ("GET", f"/v1/fine_tuning/jobs/<{trained}>"),
        ("GET", f"/v1/fine_tuning/jobs/<{trained}>/events"),
        ("POST", f"/v1/fine_tuning/jobs/<{trained}>/cancel"),
        ("GET", f"/v2/finetuning/jobs/<{trained}>"),
        ("DELETE", f"/api/v1/keys/<{own}>"),
        ("POST", f"/api/v1/keys/<{own}>/rotate"),
    ]


if __name__ == "__main__":
    report.main("surface", measure, ("fastapi", "pydantic"))
