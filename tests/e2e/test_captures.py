"""What a deployment's owner has kept of its requests, and versions that shadow others."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conftest import ADAPTERS
from tests.e2e.running import Platform, until
from tests.e2e.test_limits_and_usage import Tenant

pytestmark = pytest.mark.e2e

SAID: list[Any] = [{"role": "user", "content": "Where do you live? My name is Klaus."}]
PATH = "/api/v1/deployments/chat/exchanges"


@pytest.fixture
def client(platform: Platform) -> Iterator[openai.OpenAI]:
    yield platform.openai().with_options(max_retries=5)
    http = platform.http()
    http.patch("/api/v1/deployments/chat", json={"capture": 0})
    http.delete("/api/v1/repos/json/aliases/watched")
    http.delete(PATH)


def kept(platform: Platform, wanted: int) -> list[dict[str, Any]]:
    """The newest first, once there are so many."""
    return until(
        lambda: platform.http().get(PATH).json()["data"], lambda found: len(found) >= wanted
    )


def kept_after(platform: Platform, client: openai.OpenAI) -> list[dict[str, Any]]:
    """Once what was asked before must have been stored: a marker that came later is."""
    platform.loraplex("captures", "on", "chat")
    marker: Any = [{"role": "user", "content": "marker"}]
    client.chat.completions.create(model="chat", messages=marker, max_tokens=1)
    platform.loraplex("captures", "off", "chat")

    def is_marker(row: dict[str, Any]) -> bool:
        return bool(row["asked"]["messages"][0]["content"] == "marker")

    found = until(
        lambda: platform.http().get(PATH).json()["data"],
        lambda rows: bool(rows) and is_marker(rows[0]),
    )
    return [row for row in found if not is_marker(row)]


def test_requests_are_kept_with_their_answers_and_become_a_dataset(
    platform: Platform, client: openai.OpenAI
) -> None:
    assert platform.loraplex("captures", "on", "chat").returncode == 0
    facts: dict[str, Any] = {"messages": SAID, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(model="chat:pirate/1", **facts)
    stream = client.chat.completions.create(model="chat", stream=True, **facts)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    client.chat.completions.create(model="chat", n=2, **facts)  # which of them is the answer?
    endless = {"max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    left = client.chat.completions.create(model="chat", stream=True, **facts | endless)
    next(iter(left))
    left.close()
    client.embeddings.create(model="chat", input="no answer")
    found = kept(platform, 2)
    assert [row["adapter"] for row in found] == ["", "pirate/1"]
    said = [text, whole.choices[0].message.content or ""]
    assert [row["answer"] for row in found] == [each.replace("Klaus", "[name]") for each in said]
    assert "Klaus" not in json.dumps(found), "redacted by the operator's function"
    assert found[0]["asked"]["messages"][0]["content"] == "Where do you live? My name is [name]."
    assert platform.loraplex("captures", "off", "chat").returncode == 0
    client.chat.completions.create(model="chat", **facts)
    assert len(kept_after(platform, client)) == 2
    told = platform.loraplex("captures", "save", "chat", "kept-pirates", "--answers-of", "pirate/1")
    assert told.returncode == 0 and "1 rows of messages" in told.stdout, told.stderr
    content = platform.http().get("/api/v1/datasets/kept-pirates/content").json()
    assert content["messages"][-1] == {"role": "assistant", "content": found[1]["answer"]}
    nothing = {"name": "none", "answers_of": "json/1"}
    assert platform.http().post(f"{PATH}/dataset", json=nothing).status_code == 400
    assert "3 exchanges" in platform.loraplex("captures", "clear", "chat", "--yes").stdout


def test_what_others_ask_of_a_shared_deployment_is_not_kept(
    platform: Platform, client: openai.OpenAI
) -> None:
    assert platform.loraplex("captures", "on", "chat").returncode == 0
    assert platform.loraplex("share", "chat").returncode == 0
    other = Tenant(platform, "private")
    asked: Any = [{"role": "user", "content": "A secret."}]
    other.openai.with_options(max_retries=5).chat.completions.create(
        model="chat", messages=asked, max_tokens=2
    )
    mine: Any = [{"role": "user", "content": "No secret."}]
    client.chat.completions.create(model="chat", messages=mine, max_tokens=2)
    found = kept(platform, 1)  # what came before it would be there, too
    assert [row["asked"]["messages"][0]["content"] for row in found] == ["No secret."]
    assert other.http.get(PATH).json()["data"] == []
    assert platform.loraplex("share", "chat", "--off").returncode == 0
    assert other.http.get(PATH).status_code == 404


def test_a_shadow_is_asked_the_same_and_disturbs_nobody(
    platform: Platform, client: openai.OpenAI
) -> None:
    http = platform.http()
    http.put("/api/v1/repos/json/aliases/watched", json={"versions": {"1": 1}})
    second = {"repo": "json", "base_model": ""}
    files = {
        "adapter_config": (ADAPTERS / "pirate" / "adapter_config.json").read_bytes(),
        "adapter_model": (ADAPTERS / "pirate" / "adapter_model.safetensors").read_bytes(),
    }
    ref = http.post("/api/v1/adapters", data=second, files=files).json()["ref"]
    told = platform.loraplex("alias", "shadow", "json@watched", ref, "--percent", "100")
    assert "shadowed by" in told.stdout, told.stderr
    asked = [{"role": "user", "content": "Where do you live?"}]
    facts: dict[str, Any] = {"messages": asked, "max_tokens": 16, "temperature": 0}
    until(lambda: platform.deployment("chat")["status"], lambda status: status == "standby")
    answer = client.chat.completions.create(model="chat:json@watched", **facts)
    (found,) = kept(platform, 1)
    assert found["adapter"] == "json/1"
    assert found["answer"] == answer.choices[0].message.content
    assert "Arrr" in found["shadows"][ref], "what the other version says"
    told = platform.loraplex("alias", "shadow", "json@watched", "off")
    assert told.returncode == 0 and "shadowed" not in told.stdout
    client.chat.completions.create(model="chat:json@watched", **facts)
    assert len(kept_after(platform, client)) == 1
    platform.loraplex("captures", "on", "chat")
    platform.loraplex("alias", "shadow", "json@watched", ref, "--percent", "100")
    http.delete(PATH)
    both = [client.chat.completions.create(model="chat:json@watched", **facts) for _ in range(3)]
    found = kept(platform, 3)
    assert [row["answer"] for row in found] == [each.choices[0].message.content for each in both]
    assert any(ref in row["shadows"] for row in found)
    platform.loraplex("captures", "off", "chat")
    wrong = http.put(
        "/api/v1/repos/json/aliases/watched/shadow", json={"version": 99, "percent": 5}
    )
    assert wrong.status_code == 404
    rows = until(
        lambda: json.loads(platform.loraplex("repos", "figures", "json", "--json").stdout),
        lambda found: {row["version"] for row in found} >= {"json/1", ref},
    )
    assert all(row["failed"] == 0 and row["first_token_p50_s"] > 0 for row in rows)
    assert http.delete(f"/api/v1/adapters/{ref}").status_code == 204
