"""The commands for who watches a platform: what they say is so, for people and for programs."""

import json
from typing import Any

import pytest

from tests.e2e.running import Platform, until
from tests.e2e.test_platform import ask

pytestmark = pytest.mark.e2e


def test_ps_top_and_describe_agree(platform: Platform) -> None:
    platform.deploy("shown", cooldown_time=3600)
    ask(platform.openai(), "shown")

    def shown() -> dict[str, Any]:
        replicas = json.loads(platform.loraplex("ps", "--json").stdout)
        found: dict[str, Any] = next(r for r in replicas if r["deployment"] == "shown")
        return found

    replica = until(shown, lambda found: found["device"] == "cpu")  # it looks each second
    assert replica["generated"] > 0 and replica["memory"] > 2**20
    look = json.loads(platform.loraplex("top", "--once", "--json").stdout)
    assert replica["id"] in [
        each["id"] for d in look["deployments"] if d["name"] == "shown" for each in d["replicas"]
    ]
    for command in (("ps",), ("top", "--once"), ("describe", "shown")):
        shown = platform.loraplex(*command)
        assert shown.returncode == 0, shown.stderr
        assert replica["id"] in shown.stdout
    whole = json.loads(platform.loraplex("describe", "shown", "--json").stdout)
    assert whole["deployment"]["name"] == "shown" and whole["events"] and whole["explain"]["why"]
    platform.http().delete("/api/v1/deployments/shown")


def test_bench_mixes_adapters(platform: Platform) -> None:
    command = ("bench", "chat", "-m", "base", "-m", "pirate/1=2", "-n", "6", "-c", "3")
    found = json.loads(platform.loraplex(*command, "--max-tokens", "5", "--json").stdout)
    assert (found["requests"], found["failed"]) == (6, 0)
    assert set(found["ttft_s_by_variant"]) == {"base", "pirate/1"}
    assert 0 < found["ttft_s"]["p50"] <= found["ttft_s"]["p99"] <= found["duration_s"]["p99"]
    refused = platform.loraplex("bench", "nowhere", "-n", "1")
    assert refused.returncode == 1 and "does not exist" in refused.stderr


def test_logs_of_a_deployment_come_from_its_replicas(platform: Platform) -> None:
    ask(platform.openai(), "chat")
    shown = platform.loraplex("logs", "chat", "-n", "500")
    assert "ready after" in shown.stdout
    answer = platform.http().get("/api/v1/deployments/chat/logs?tail=1").json()["data"]
    assert len(answer) == 1
    after = platform.http().get(f"/api/v1/deployments/chat/logs?after={answer[0]['id']}").json()
    assert answer[0] not in after["data"]
    assert platform.http().get("/api/v1/deployments/chat/logs?after=x").status_code == 400


def test_doctor_finds_nothing_here_and_says_what_is_wrong_elsewhere(platform: Platform) -> None:
    well = platform.loraplex("doctor", "--json")
    assert well.returncode == 0, well.stdout
    assert {"redis", "clock", "database", "api"} <= {e["subject"] for e in json.loads(well.stdout)}
    port = platform.environment["LORAPLEX_PORT"]
    elsewhere = Platform(platform.home / "elsewhere", {"LORAPLEX_PORT": port})
    elsewhere.environment["LORAPLEX_HOME"] = str(elsewhere.home)
    ill = elsewhere.loraplex("doctor", "--json")
    assert ill.returncode == 1
    (bad,) = [each for each in json.loads(ill.stdout) if each["level"] == "bad"]
    assert bad["subject"] == "port" and "LORAPLEX_PORT" in bad["remedy"]
