"""Predibase's SDK, unmodified, against the platform; and what it asks for, call by call."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.environments import python_with, run
from loraplex.store.models import DEMO_MODEL
from tests.conftest import ADAPTERS, REPOSITORY
from tests.e2e.running import Platform, until

SDK = "predibase==2025.10.3"


@pytest.fixture(scope="module")
def predibase() -> Path:
    return python_with(SDK)


def config(**given: Any) -> dict[str, Any]:
    """As the SDK sends it: every field, null where unset."""
    unset = ["customArgs", "hfToken", "maxTotalTokens", "loraxImageTag", "requestLoggingEnabled"]
    unset += ["directIngress", "preloadedAdapters", "speculator", "prefixCaching", "backend"]
    unset += ["baseModel", "cooldownTime", "minReplicas", "maxReplicas", "computeSpec"]
    unset += ["scaleUpRequestThreshold", "quantization", "accelerator", "disableAdapters"]
    return dict.fromkeys(unset) | given


def test_the_example_runs(platform: Platform, predibase: Path) -> None:
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": key}
    printed = run(predibase, REPOSITORY / "examples" / "predibase_sdk_day.py", environment)
    assert "Arrr" in printed and "2 30 0" in printed and "refused: " in printed
    assert "uploaded: predibase-day/1" in printed
    assert "limited: " in printed and "1 concurrent" in printed and "used: " in printed
    assert (
        printed.rstrip().splitlines()[-1].startswith("left: [")
        and "predibase-day" not in (printed.rstrip().splitlines()[-1])
    )


@pytest.mark.parametrize("path", ["/users/current", "/v1/users/current"])
def test_who_is_logged_in(platform: Platform, path: str) -> None:
    user = platform.http().get(path).json()
    assert user["tenant"]["shortCode"] == "dev"
    assert isinstance(user["id"], int) and user["tenant"]["subscription"]["active"] is True


@pytest.mark.processes
def test_create_waits_for_an_event_that_comes_also_without_a_replica(
    platform: Platform, tmp_path: Path
) -> None:
    http = platform.http()
    body = {"name": "pb-idle", "config": config(baseModel=DEMO_MODEL), "description": ""}
    assert http.post("/v2/deployments", json=body).status_code == 201

    def events() -> list[str]:
        found = http.get("/llms/pb-idle/events?detailed=false").json()
        return [each["eventType"] for each in found["ComputeEvents"]]

    until(events, lambda found: found[-1:] == ["Ready"])
    shown = http.get("/v2/deployments/pb-idle").json()["data"]
    assert (shown["status"], shown["currentReplicas"]) == ("standby", 0)
    assert shown["model"] == {"name": DEMO_MODEL, "maxInputLength": 8192}

    again = http.post("/v2/deployments", json=body)
    assert again.status_code == 409 and "exists already" in again.json()["error"]
    nothing = http.put("/v2/deployments/pb-idle", json={"config": config()})
    assert nothing.json()["data"]["config"] == shown["config"], "null means unchanged"
    more = {"config": config(maxNumBatchedTokens=64, minReplicas=0), "description": "small"}
    changed = http.put("/v2/deployments/pb-idle", json=more).json()["data"]
    assert changed["description"] == "small"
    until(events, lambda found: found[-1:] == ["Ready"])
    bad = {"config": config(baseModel=str(tmp_path))}
    assert http.put("/v2/deployments/pb-idle", json=bad).status_code == 200
    until(events, lambda found: found[-1:] == ["Failed"])
    until(
        lambda: http.get("/v2/deployments/pb-idle").json()["data"]["config"],
        lambda found: found.get("maxNumBatchedTokens") == 64,
        60,
    )
    http.post("/api/v1/deployments/pb-idle/stop")
    assert events()[-1] == "Failed", "the SDK gives up"
    assert http.delete("/v2/deployments/pb-idle").json() == {"data": {"name": "pb-idle"}}
    assert http.get("/v2/deployments/pb-idle").status_code == 404


def test_preloaded_adapters_are_loaded_before_anybody_asks(platform: Platform) -> None:
    http = platform.http()
    given = config(baseModel=DEMO_MODEL, minReplicas=1, preloadedAdapters=["pirate/1", "json/1"])
    body = {"name": "pb-preload", "config": given, "description": ""}
    made = http.post("/v2/deployments", json=body)
    assert made.json()["data"]["config"]["preloadedAdapters"] == ["pirate/1", "json/1"]
    log = until(
        lambda: platform.loraplex("logs", "pb-preload").stdout,
        lambda text: "preloading adapter json/1" in text,
    )
    assert "preloading adapter pirate/1" in log
    same = http.put("/v2/deployments/pb-preload", json={"config": config(maxReplicas=2)})
    assert same.json()["data"]["config"]["preloadedAdapters"] == ["pirate/1", "json/1"]
    for wrong in ("pirate/9", "pb-preload"):
        change = {"config": config(preloadedAdapters=[wrong])}
        refused = http.put("/v2/deployments/pb-preload", json=change)
        assert refused.status_code == 400 and wrong in refused.json()["error"]
    assert http.delete("/v2/deployments/pb-preload").status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {"speculator": "medusa"},
        {"quantization": "int8"},
        {"accelerator": "a100_80gb_100"},
        {"customArgs": ["--x"]},
        {"hfToken": "hf_x"},
        {"prefixCaching": False},
        {"disableAdapters": True},
        {"preloadedAdapters": [""]},
        {"minReplicas": -1},
        {"surprise": 1},
    ],
    ids=str,
)
def test_what_is_not_honoured_is_refused_with_a_sentence(
    platform: Platform, given: dict[str, Any]
) -> None:
    body = {"name": "pb-no", "config": config(baseModel=DEMO_MODEL, **given)}
    answer = platform.http().post("/v2/deployments", json=body)
    assert answer.status_code == 400 and next(iter(given)) in answer.json()["error"]


@pytest.mark.processes
def test_a_base_model_that_cannot_be_read_is_shown_and_errored(
    platform: Platform, tmp_path: Path
) -> None:
    http = platform.http()
    body = {"name": "pb-broken", "config": config(baseModel=str(tmp_path)), "description": ""}
    assert http.post("/v2/deployments", json=body).status_code == 201
    until(
        lambda: http.get("/llms/pb-broken/events").json(),
        lambda found: found["ComputeEvents"][-1:] and found["deploymentStatus"] == "errored",
    )
    assert http.get("/v2/deployments/pb-broken").json()["data"]["status"] == "errored"
    assert http.get("/deployments/pb-broken/info").status_code == 503
    assert http.delete("/v2/deployments/pb-broken").status_code == 200


def test_lists_by_type_and_what_is_not_there(platform: Platform) -> None:
    http = platform.http()
    names = [d["name"] for d in http.get("/v2/deployments").json()["data"]]
    assert "chat" in names
    assert http.get("/v2/deployments?type=shared").json()["data"] == []
    private = http.get("/v2/deployments?type=private").json()["data"]
    assert [d["name"] for d in private] == names
    assert http.get("/v2/deployments?type=other").status_code == 400
    for path in ("/v2/deployments/none", "/llms/none/events", "/v2/nothing"):
        answer = http.get(path)
        assert answer.status_code == 404 and isinstance(answer.json()["error"], str)
    suggested = http.get(f"/v2/deployments/recommended-config?baseModel={DEMO_MODEL}").json()
    assert suggested["baseModel"] == DEMO_MODEL
    assert http.get("/v2/deployments/recommended-config?baseModel=").status_code == 400
    assert http.get("/v2/deployments/chat/request-logs").status_code == 400


def test_repos_adapters_and_datasets_by_the_sdk(platform: Platform, predibase: Path) -> None:
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    script = Path(__file__).parent / "scripts" / "predibase_registry.py"
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": key}
    printed = run(predibase, script, environment | {"ADAPTER_FOLDER": str(ADAPTERS / "pirate")})
    found = json.loads(printed.splitlines()[-1])
    sentences = {
        "taken": "exists already",
        "bad name": "no name of a repo",
        "nothing": "no adapter 'pb-repo/7'",
        "pickle": "pickle",
        "dataset again": "exists already",
        "bad rows": "line 2: it needs prompt and completion",
        "deleted": "no adapter 'pb-repo/1'",
        "no repo": "no repo 'pb-repo'",
    }
    for name, sentence in sentences.items():
        assert sentence in found.pop(name), name
    assert all("isn't supported here" in each for each in found.pop("absent"))
    assert found == {
        "created": ["pb-repo", "of a test", 0],
        "exists_ok": True,
        "uploaded": ["pb-repo/1", DEMO_MODEL, False],
        "same again": "pb-repo/1",
        "got": True,
        "listed": ["pb-repo"],
        "serves": True,
        "downloaded": {"adapter_config.json": True, "adapter_model.safetensors": True},
        "dataset": ["pb-data", "connected", "file_uploads"],
        "same dataset": True,
        "data back": True,
        "archived": [0, True],
        "unarchived": 1,
        "next": "pb-repo/2",
    }


def test_a_transfers_url_is_its_own_secret_and_for_one_purpose(platform: Platform) -> None:
    http = platform.http()
    begun = http.post("/v2/datasets/upload", json={"fileName": "a.jsonl"}).json()
    url = begun["presignedUrl"]
    row = b'{"prompt": "a", "completion": "b"}\n'
    assert httpx.put(url, content=row).json() == {"bytes": len(row)}
    where, _, secret = url.removesuffix("/data").rpartition("/")
    other = "".join("B" if c == "A" else "A" for c in secret)
    for wrong in (f"{where}/{other}/data", url.replace("/data", "/x"), f"{where}/{secret}/../data"):
        assert httpx.put(wrong, content=row).status_code == 404, wrong
    assert httpx.get(url).status_code == 404, "it is for sending"
    token = begun["uploadToken"]
    as_adapter = http.put("/v2/adapters/upload/", json={"uploadToken": token})
    assert as_adapter.status_code == 404
    done = http.put("/v2/datasets/upload", json={"uploadToken": token, "name": "sent"})
    assert done.json()["status"] == "connected"
    assert httpx.put(url, content=row).status_code == 404, "it has been completed"
    file = http.get("/api/v1/datasets/sent").json()["file_id"]
    assert http.delete(f"/v1/files/{file}").status_code == 409
    assert http.delete("/api/v1/datasets/sent").status_code == 204
    assert http.get(f"/v1/files/{file}").status_code == 404


def test_fine_tuning_by_the_sdk(platform: Platform, predibase: Path) -> None:
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    script = Path(__file__).parent / "scripts" / "predibase_finetune.py"
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": key}
    printed = run(predibase, script, environment | {"MODEL": DEMO_MODEL})
    found = json.loads(printed.splitlines()[-1])
    assert "nothing" in found.pop("why") and "task" in found.pop("refused")
    assert found == {
        "made": ["ft-repo/1", DEMO_MODEL, True],
        "next": [2, "ft-data", True],
        "cancelled": "canceled",
        "no version": "FinetuningError",
        "failed": "errored",
    }
    said = {"messages": [{"role": "user", "content": "1+1="}], "max_tokens": 2}
    answer = platform.http().post("/v1/chat/completions", json=said | {"model": "ft-repo/1"})
    assert answer.status_code == 200
