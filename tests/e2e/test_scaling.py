"""Statuses end to end: changes roll out under load, are explained, taken back when they fail."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kombu
import psutil
import pytest

from loraplex.keys import BUS_PREFIX
from loraplex.store.models import DEMO_MODEL
from tests.e2e.running import Platform, until
from tests.e2e.test_delivery import CHAT, CHAT_URL, ENDLESS, contents, events
from tests.e2e.test_platform import ask, wait_for_standby

pytestmark = pytest.mark.e2e

PATIENCE_S = 120


@contextmanager
def asking(platform: Platform, name: str) -> Iterator[list[str]]:
    """Requests of two clients, one after the other, until the block ends; a failure is raised."""
    stop = threading.Event()
    answers: list[str] = []
    failures: list[Exception] = []

    def client() -> None:
        while not stop.is_set() and not failures:
            try:
                answers.append(ask(platform.openai(), name, max_tokens=20))
            except Exception as failed:  # raised in the test
                failures.append(failed)

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def change(platform: Platform, name: str, **body: Any) -> dict[str, Any]:
    answer = platform.http().patch(f"/api/v1/deployments/{name}", json=body)
    assert answer.status_code == 200, answer.text
    facts: dict[str, Any] = answer.json()
    return facts


def status_is(platform: Platform, name: str, status: str) -> dict[str, Any]:
    return until(lambda: platform.deployment(name), lambda d: d["status"] == status, PATIENCE_S)


def moves(platform: Platform, name: str) -> list[str]:
    rows = platform.events(name)
    return [e["to_status"] for e in rows if e["from_status"] != e["to_status"]]


@pytest.fixture
def rolling(platform: Platform) -> Iterator[str]:
    wait_for_standby(platform)
    platform.deploy("rolling", cooldown_time=120)
    yield "rolling"
    assert platform.loraplex("rm", "rolling").returncode == 0
    until(platform.replicas, lambda found: not found)


def test_new_engine_settings_are_rolled_out_without_losing_a_request(
    platform: Platform, rolling: str
) -> None:
    ask(platform.openai(), rolling)
    (before,) = status_is(platform, rolling, "ready")["replicas"]
    least = 1
    with asking(platform, rolling) as answers:
        changed = platform.loraplex("update", rolling, "--engine", "max_running=3")
        assert changed.returncode == 0, changed.stderr
        assert platform.deployment(rolling)["status"] == "updating"
        while (now := platform.deployment(rolling))["status"] == "updating":
            least = min(least, sum(r["phase"] == "ready" for r in now["replicas"]))
        asked = len(answers)
        until(lambda: len(answers), lambda n: n > asked + 2)
    assert now["status"] == "ready"
    assert least == 1, "never below what serves"
    (after,) = until(lambda: platform.deployment(rolling)["replicas"], lambda rows: len(rows) == 1)
    assert after["id"] != before["id"]
    assert now["engine"] == {"max_running": "3"}
    assert set(answers) == {answers[0]}
    assert moves(platform, rolling)[-3:] == ["ready", "updating", "ready"]


def test_another_base_model_takes_over_and_a_broken_one_does_not(
    platform: Platform, rolling: str, tmp_path: Path
) -> None:
    ask(platform.openai(), rolling)
    other = tmp_path / "other"
    shutil.copytree(platform.home / "models" / DEMO_MODEL.replace("/", "--"), other)
    with asking(platform, rolling) as answers:
        changed = change(platform, rolling, base_model=str(other))
        assert changed["base_model"] == DEMO_MODEL
        assert changed["change"]["base_model"] == str(other)
        status_is(platform, rolling, "updating")
        now = status_is(platform, rolling, "ready")
        assert now["base_model"] == str(other)
        asked = len(answers)
        until(lambda: len(answers), lambda n: n > asked + 2)

        (other / "model.safetensors").unlink()
        broken = shutil.copytree(other, tmp_path / "broken")
        (broken / "model.safetensors").write_bytes(b"not weights")
        change(platform, rolling, base_model=str(broken))
        taken_back = status_is(platform, rolling, "ready")
        asked = len(answers)
        until(lambda: len(answers), lambda n: n > asked + 2)
    assert taken_back["base_model"] == str(other)
    assert "taken back" in taken_back["reason"] and "SafetensorError" in taken_back["reason"]
    assert set(answers) == {answers[0]}


def test_a_change_that_cannot_be_fetched_disturbs_nobody(platform: Platform, rolling: str) -> None:
    wait_for_standby(platform, rolling)
    (platform.home / "empty").mkdir()
    change(platform, rolling, base_model=str(platform.home / "empty"))
    taken_back = until(lambda: platform.deployment(rolling), lambda d: d["change"] is None)
    assert (taken_back["status"], taken_back["base_model"]) == ("standby", DEMO_MODEL)
    assert "taken back" in taken_back["reason"] and "empty" in taken_back["reason"]
    assert ask(platform.openai(), rolling)


def test_a_base_model_that_cannot_start_is_tried_beside_and_disturbs_nobody(
    platform: Platform, rolling: str, tmp_path: Path
) -> None:
    ask(platform.openai(), rolling)  # it has served, so that there is something to go back to
    kill = psutil.Process(json.loads(_replica_of(platform).read_text())["pid"])
    broken = tmp_path / "broken"
    shutil.copytree(platform.home / "models" / DEMO_MODEL.replace("/", "--"), broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with asking(platform, rolling) as answers:
        kill.kill()
        change(platform, rolling, base_model=str(broken))
        until(lambda: platform.deployment(rolling), lambda d: d["change"] is None, PATIENCE_S)
        asked = len(answers)
        until(lambda: len(answers), lambda n: n > asked + 2)
    assert platform.deployment(rolling)["base_model"] == DEMO_MODEL
    assert any(e["kind"] == "rollout_failed" for e in platform.events(rolling))
    assert set(answers) == {answers[0]}


def _replica_of(platform: Platform) -> Path:
    (record,) = (platform.home / "replicas").glob("rep-*.json")
    return record


def test_who_comes_back_after_a_change_of_base_model_loses_nothing(
    platform: Platform, rolling: str, tmp_path: Path
) -> None:
    api, body = platform.http(), CHAT | {"model": rolling}
    whole = list(events(api, CHAT_URL, body, **{"idempotency-key": "before"}))
    stream = events(api, CHAT_URL, ENDLESS | {"model": rolling})
    running = json.loads(next(stream).data)["id"]

    other = tmp_path / "other"
    shutil.copytree(platform.home / "models" / DEMO_MODEL.replace("/", "--"), other)
    change(platform, rolling, base_model=str(other))
    until(lambda: platform.deployment(rolling), lambda d: d["base_model"] == str(other))

    rest = list(events(api, CHAT_URL, body, whole[3].id))
    assert contents([*whole[:4], *rest]) == contents(whole)
    again = list(events(api, CHAT_URL, body, **{"idempotency-key": "before"}))
    assert [e.id for e in again] == [e.id for e in whole]
    assert api.get(f"/api/v1/requests/{running}").json()["state"] == "running"
    assert api.delete(f"/api/v1/requests/{running}").json()["cancelled"] is True
    *_, last, _ = stream
    assert json.loads(last.data)["error"]["code"] == "cancelled"
    status_is(platform, rolling, "ready")


def test_what_is_so_already_is_no_error(platform: Platform, rolling: str) -> None:
    for verb, status in (("start", "standby"), ("stop", "stopped"), ("stop", "stopped")):
        wait_for_standby(platform, rolling) if verb == "start" else None
        answer = platform.http().post(f"/api/v1/deployments/{rolling}/{verb}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    latest = platform.events(rolling)[-1]["id"]
    assert platform.loraplex("start", rolling).returncode == 0
    rows = platform.http().get(f"/api/v1/deployments/{rolling}/events?after={latest}").json()
    assert rows["data"][0]["kind"] == "start"
    tight = platform.loraplex("scale", rolling, "--min", "3")
    assert tight.returncode == 1 and "Give both" in tight.stderr


def test_a_decision_is_explained(platform: Platform, rolling: str) -> None:
    wait_for_standby(platform, rolling)
    asleep = until(
        lambda: json.loads(platform.loraplex("explain", rolling, "--json").stdout),
        lambda facts: facts["would_change"],
    )
    assert asleep["would_change"] == ["Up: 1 further request at once."]
    ask(platform.openai(), rolling)
    facts = until(
        lambda: json.loads(platform.loraplex("explain", rolling, "--json").stdout),
        lambda f: f["has"] == 1 and "kept" in f["why"],
    )
    assert facts["inputs"]["cold_start_s"] > 0
    assert any(line.startswith("Down: ") for line in facts["would_change"])
    assert facts["last_decisions"][0]["inputs"]["waiting"] == 1
    shown = platform.loraplex("explain", rolling)
    assert shown.returncode == 0 and "would" not in shown.stderr
    until(
        lambda: [e["kind"] for e in platform.events(rolling)], lambda kinds: "cold_start" in kinds
    )


def test_other_laws_are_compared_on_the_recorded_traffic(platform: Platform, rolling: str) -> None:
    few = platform.loraplex("explain", rolling, "--compare")
    assert few.returncode == 1 and "too few" in few.stderr
    for _ in range(6):
        ask(platform.openai(), rolling, max_tokens=4)
    compared = until(
        lambda: platform.loraplex("explain", rolling, "--compare", "--json"),
        lambda done: done.returncode == 0 and json.loads(done.stdout)["requests"] == 6,
    )
    found = json.loads(compared.stdout)
    names = [law["law"] for law in found["laws"]]
    assert names[0] == "this deployment" and {"knative", "keda", "ray_serve"} <= set(names)
    assert all(law["replica_seconds"] > 0 for law in found["laws"])
    assert "knative" in platform.loraplex("explain", rolling, "--compare").stdout


def test_a_schedule_holds_replicas_in_its_hours(platform: Platform, rolling: str) -> None:
    wait_for_standby(platform, rolling)
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(hours=h):%H:%M}" for h in (-1, 1))
    said = platform.loraplex("scale", rolling, "--schedule", f"{start}-{end} UTC min=1")
    assert said.returncode == 0, said.stderr
    status_is(platform, rolling, "ready")
    assert "min_replicas is 1" in platform.events(rolling)[-3]["reason"]
    assert platform.loraplex("scale", rolling, "--schedule", "").returncode == 0
    assert platform.loraplex("scale", rolling, "--schedule", "at night").returncode == 2
    wrong = platform.http().patch(
        f"/api/v1/deployments/{rolling}",
        json={"schedules": [{"min_replicas": 1, "start": "8", "end": "18:00"}]},
    )
    assert wrong.status_code == 400 and "start" in wrong.text


def test_status_changes_are_on_the_event_bus(platform: Platform, rolling: str) -> None:
    options = {"global_keyprefix": BUS_PREFIX}
    with kombu.Connection(platform.redis_url, transport_options=options) as bus:
        exchange = kombu.Exchange("loraplex.events", type="topic", durable=True)
        queue = kombu.Queue("", exchange, routing_key="deployment.#", exclusive=True)
        got: list[dict[str, Any]] = []
        with bus.Consumer([queue], callbacks=[lambda body, m: (got.append(body), m.ack())]):
            assert platform.loraplex("stop", rolling).returncode == 0
            while not any(event["kind"] == "stop" for event in got):
                bus.drain_events(timeout=30)
    assert [(e["deployment"], e["kind"], e["to_status"]) for e in got if e["kind"] == "stop"] == [
        (rolling, "stop", "stopped")
    ]
    assert platform.loraplex("start", rolling).returncode == 0
