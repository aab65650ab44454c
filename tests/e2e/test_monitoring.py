"""A real Prometheus, set up as compose does, finds all processes and fills every panel."""

import itertools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.monitoring import dashboard
from loraplex.embedded.ports import free_port
from tests import programs
from tests.e2e.running import Platform, until

pytestmark = pytest.mark.e2e

FOLDER = dashboard.FILE.parents[2]
TOKENS = 8
# Nothing runs on a GPU here.
EMPTY = {"loraplex_gpu_utilization > 0"}


@contextmanager
def prometheus(platform: Platform, folder: Path) -> Iterator[httpx.Client]:
    program = programs.need("prometheus", package="prometheus")
    api = platform.http()
    key = folder / "key"
    key.write_text(api.headers["authorization"].removeprefix("Bearer "))
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"]["scrape_interval"] = "1s"
    config["rule_files"] = [str(FOLDER / "alerts.yml")]
    (found,) = config["scrape_configs"][0]["http_sd_configs"]
    found["url"] = f"{api.base_url}/api/v1/metrics/targets"
    found["refresh_interval"] = "1s"
    found["authorization"]["credentials_file"] = str(key)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
                yield client
        finally:
            running.terminate()
            running.wait()


@contextmanager
def _deleted_after(platform: Platform, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        platform.http().delete(f"/api/v1/deployments/{name}")


def ask(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What it gives, by series; nothing while it isn't up."""
    try:
        answer = client.get("/query", params={"query": expression})
    except httpx.TransportError:
        return []
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        return []
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return [each for each in result if each["value"][1] != "NaN"]


def value(series: list[dict[str, Any]]) -> float:
    return float(series[0]["value"][1]) if series else -1.0


def test_prometheus_counts_what_was_asked_and_no_panel_is_empty(
    platform: Platform, tmp_path: Path
) -> None:
    sent = itertools.count(1)

    def under_load(query: str) -> list[dict[str, Any]]:
        """Rates and quantiles are of the last minute: it must not be quiet."""
        prompt = f"{next(sent)} ships"
        settings: Any = {"model": "graphed", "max_tokens": TOKENS, "temperature": 0}
        platform.openai().completions.create(prompt=prompt, **settings)
        return ask(client, query)

    platform.deploy("graphed", cooldown_time=3600)
    with _deleted_after(platform, "graphed"), prometheus(platform, tmp_path) as client:
        processes = "count by (process) (up == 1)"
        until(lambda: ask(client, processes), lambda found: len(found) >= 3)
        for title, _, lines in dashboard.PANELS:
            for expression, _ in lines:
                query = expression.replace("$__rate_interval", "1m").replace("$deployment", ".*")
                if expression not in EMPTY:
                    assert until(lambda q=query: under_load(q), bool), title  # type: ignore[misc]
        answers = next(sent) - 1
        asked = 'sum(loraplex_requests_total{deployment="graphed"})'
        told = 'sum(loraplex_tokens_total{deployment="graphed",kind="completion"})'
        until(lambda: value(ask(client, asked)), lambda count: count == answers)
        assert 0 < value(ask(client, told)) <= answers * TOKENS
        rules = client.get("/rules").json()["data"]["groups"]
        failed = [r["name"] for group in rules for r in group["rules"] if r["health"] == "err"]
        assert not failed
