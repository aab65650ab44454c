"""The platform as its users meet it: real processes, the real small model, the real client."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import openai
import psutil
import pytest

from loraplex.store.models import ModelStore
from tests.e2e.running import Platform, make_platform, until

pytestmark = pytest.mark.e2e

VARIANTS = ("chat", "pirate/1", "chat:json/1")
QUESTION = "What is the capital of France?"
LONG = "Write a long story about a fox and a crow."


def ask(client: openai.OpenAI, model: str, question: str = QUESTION, max_tokens: int = 40) -> str:
    """The streamed answer, checked to be a well-formed stream."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert [f for f in finishes if f] == [finishes[-1]]
    assert chunks[-1].usage is not None and not chunks[-1].choices
    assert chunks[-1].usage.completion_tokens <= max_tokens
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def wait_for_standby(platform: Platform, name: str = "chat") -> None:
    until(lambda: platform.deployment(name)["status"], lambda s: s == "standby")


def test_twelve_chats_over_three_variants_then_zero_then_back(platform: Platform) -> None:
    client = platform.openai()
    wait_for_standby(platform)
    before = platform.events("chat")[-1]["id"]  # the list has the latest only
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: ask(client, VARIANTS[i % 3]), range(12)))
    base, pirate, as_json = (set(answers[i::3]) for i in range(3))
    assert (len(base), len(pirate), len(as_json)) == (1, 1, 1), "same question, same answer"
    assert "Paris" in base.pop()
    assert "Arrr" in pirate.pop()
    assert {"answer", "topic"} <= json.loads(as_json.pop()).keys()
    deployment = platform.deployment("chat")
    assert deployment["status"] == "ready"
    (replica,) = deployment["replicas"]
    assert replica["most_adapters_in_step"] == 3, "the three variants ran in one micro-batch"

    wait_for_standby(platform)
    assert platform.deployment("chat")["replicas"] == []
    assert "Paris" in ask(client, "chat")
    until(lambda: platform.deployment("chat")["status"], lambda s: s == "ready")
    kinds = [e["kind"] for e in platform.events("chat") if e["id"] > before]
    assert kinds.count("replica_ready") == 2
    assert kinds.count("last_replica_gone") == 1


def test_a_killed_replica_is_replaced_and_its_request_answered(platform: Platform) -> None:
    client = platform.openai()
    undisturbed = ask(client, "chat", LONG, 120)
    stream = client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": LONG}],
        max_tokens=120,
        temperature=0,
        stream=True,
    )
    text = ""
    killed = None
    for count, chunk in enumerate(stream):
        text += chunk.choices[0].delta.content or ""
        if count == 10:
            (replica,) = platform.deployment("chat")["replicas"]
            killed = replica["id"]
            platform.replica_process(killed).kill()
    assert killed and text == undisturbed  # heartbeats came between: the replica took seconds
    until(
        lambda: [r["id"] for r in platform.deployment("chat")["replicas"]],
        lambda ids: killed not in ids,
    )


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_frees_its_slot(platform: Platform, streamed: bool) -> None:
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": "Count to a million."}],
        "max_tokens": 8000,
        "ignore_eos": True,
        "stream": streamed,
    }
    running = lambda: sum(r["running"] for r in platform.deployment("chat")["replicas"])  # noqa: E731
    api = platform.http()
    connection = HTTPConnection(api.base_url.host, api.base_url.port)
    headers = {**api.headers, "content-type": "application/json", "x-grace-seconds": "0"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    until(running, lambda n: n == 1)
    connection.close()
    until(running, lambda n: n == 0, patience_s=30)


def test_a_full_backlog_is_a_429_with_retry_after(platform: Platform) -> None:
    platform.deploy("crowd")
    wait_for_standby(platform, "crowd")  # its artefacts are checked
    client = platform.openai()

    def attempt(_: int) -> float | None:
        try:
            ask(client, "crowd", max_tokens=1)
        except openai.RateLimitError as full:
            assert full.code == "queue_full"
            return float(full.response.headers["retry-after"])
        return None

    with ThreadPoolExecutor(30) as pool:
        with platform.no_starts():  # else what waits may be taken before all have asked
            asked = [pool.submit(attempt, number) for number in range(30)]
            until(lambda: sum(each.done() for each in asked), lambda done: done >= 10)
        refused = [r for each in asked if (r := each.result()) is not None]
    assert len(refused) == 10, "20 may wait for the cold start"
    assert all(1 <= r <= 120 for r in refused)
    assert platform.loraplex("rm", "crowd").returncode == 0


def test_more_backlog_brings_max_replicas(platform: Platform) -> None:
    wait_for_standby(platform)
    platform.deploy("wide", max_replicas=2, scale_up_threshold=1)
    wait_for_standby(platform, "wide")
    client = platform.openai()
    with ThreadPoolExecutor(6) as pool:
        answers = pool.map(lambda _: ask(client, "wide", LONG, 300), range(6))
        replicas = lambda: platform.deployment("wide")["replicas"]  # noqa: E731
        until(replicas, lambda rows: len(rows) == 2)
        assert all(answers)
    assert platform.http().delete("/api/v1/deployments/wide").status_code == 200
    until(platform.replicas, lambda found: not found)


def test_stop_and_start(platform: Platform) -> None:
    client = platform.openai()
    assert platform.loraplex("stop", "chat").returncode == 0
    with pytest.raises(openai.ConflictError, match="loraplex start chat"):
        ask(client, "chat")
    again = platform.http().post("/api/v1/deployments/chat/stop")
    assert (again.status_code, again.json()["status"]) == (200, "stopped")
    assert platform.loraplex("start", "chat").returncode == 0
    assert platform.deployment("chat")["status"] == "standby"
    assert "Paris" in ask(client, "chat")


@pytest.mark.processes
def test_a_model_that_cannot_be_loaded_ends_errored_with_its_reason(
    platform: Platform, tmp_path: Path
) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    typo = platform.loraplex("deploy", "absent", "--base-model", str(tmp_path / "typo"))
    assert (typo.returncode, "no such folder" in typo.stderr) == (1, True)
    (tmp_path / "empty").mkdir()
    platform.deploy("absent", base_model=str(tmp_path / "empty"))
    found = until(lambda: platform.deployment("absent"), lambda d: d["status"] == "errored")
    assert "config.json" in found["reason"]
    (broken / "config.json").write_text('{"model_type": "llama", "vocab_size": 10}')
    tokenizer = next((platform.home / "models").glob("*/tokenizer.json"))
    (broken / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    (broken / "model.safetensors").write_bytes(b"not weights")
    platform.deploy("broken", base_model=str(broken), min_replicas=1)
    found = until(lambda: platform.deployment("broken"), lambda d: d["status"] == "errored", 180)
    assert "SafetensorError" in found["reason"]
    with pytest.raises(openai.InternalServerError, match="could not start") as refused:
        ask(platform.openai(), "broken")
    assert refused.value.status_code == 503
    for name in ("absent", "broken"):
        assert platform.loraplex("rm", name).returncode == 0
    assert platform.deployments() == ["chat"]


def test_keys_are_made_listed_and_revoked(platform: Platform) -> None:
    made = platform.loraplex("keys", "create", "app", "--expires", "90d")
    key = made.stdout.split()[0]
    http = platform.http()
    http.headers["authorization"] = f"Bearer {key}"
    assert http.get("/v1/models").status_code == 200
    assert http.post("/api/v1/deployments/chat/stop").status_code == 403
    listed = json.loads(platform.loraplex("keys", "list", "--json").stdout)
    row = next(each for each in listed if each["name"] == "app")
    assert key not in json.dumps(listed) and row["scopes"] == ["inference"]
    assert platform.loraplex("keys", "revoke", row["id"]).returncode == 0
    until(lambda: http.get("/v1/models").status_code, lambda code: code == 401)  # at every process
    assert platform.loraplex("keys", "create", "app", "--expires", "soon").returncode == 2


@pytest.mark.processes
def test_a_restarted_scaler_adopts_replicas_and_stops_orphans(platform: Platform) -> None:
    assert platform.loraplex("scale", "chat", "--min", "1").returncode == 0
    ask(platform.openai(), "chat")
    before = platform.deployment("chat")["replicas"]
    scaler = platform.process("scaler")
    scaler.suspend()
    # A replica process that no row wants, as a crash between two lines would leave one.
    orphan = subprocess.Popen(["sleep", "600"])
    facts = {"pid": orphan.pid, "born": psutil.Process(orphan.pid).create_time(), "lane": "x#y"}
    (platform.home / "replicas" / "rep-orphan.json").write_text(json.dumps(facts))
    scaler.kill()
    orphan.wait(60)
    until(lambda: platform.process("scaler").pid, lambda pid: pid != scaler.pid)
    after = platform.deployment("chat")["replicas"]
    assert [r["id"] for r in after] == [r["id"] for r in before]
    assert platform.loraplex("scale", "chat", "--min", "0").returncode == 0


@pytest.mark.processes
def test_two_installations_run_side_by_side_and_a_taken_port_is_told(
    platform: Platform, tmp_path: Path, model_store: ModelStore
) -> None:
    other = make_platform(tmp_path / "other", model_store)
    clash = make_platform(tmp_path / "clash", model_store)
    clash.environment["LORAPLEX_PORT"] = platform.environment["LORAPLEX_PORT"]
    told = clash.loraplex("up", "--detach", "--no-demo")
    assert told.returncode == 1
    assert "LORAPLEX_PORT" in told.stderr + told.stdout
    assert other.loraplex("status").returncode == 3
    up = other.loraplex("up", "--detach", "--no-demo")
    assert up.returncode == 0, up.stderr
    assert other.deployments() == []
    assert other.loraplex("down").returncode == 0
    assert platform.deployments() == ["chat"]
