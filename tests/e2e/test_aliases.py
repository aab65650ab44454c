"""Aliases: a version under a name that moves at once, in part, and back."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ADAPTERS
from tests.e2e.running import Platform

pytestmark = pytest.mark.e2e

PATH = "/api/v1/repos/poet/aliases/prod"


@pytest.fixture(scope="module")
def poet(platform: Platform) -> Iterator[str]:
    """A repo whose first version is the pirate, the second one the JSON writer."""
    for folder in ("pirate", "json"):
        added = platform.loraplex("adapters", "add", "poet", str(ADAPTERS / folder))
        assert added.returncode == 0, added.stderr
    yield "poet"
    assert platform.loraplex("repos", "rm", "poet", "--yes").returncode == 0
    assert platform.http().get(PATH.rpartition("/")[0]).status_code == 404


def ask(platform: Platform, model: str = "poet@prod", **given: Any) -> tuple[str, str]:
    """Which version answered, and what."""
    messages = [{"role": "user", "content": "Where do you live?"}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0} | given
    answer = platform.http().post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    return answer.headers.get("x-adapter-id", ""), text


def put(platform: Platform, **versions: int) -> None:
    named = {each.removeprefix("v"): weight for each, weight in versions.items()}
    answer = platform.http().put(PATH, json={"versions": named})
    assert answer.status_code == 200, answer.text


def test_an_alias_is_moved_at_once_and_back(platform: Platform, poet: str) -> None:
    put(platform, v1=1)
    first = ask(platform)
    assert first == ask(platform, "poet/1") == ask(platform, "chat:poet@prod")
    assert first[0] == "poet/1"
    put(platform, v2=1)
    second = ask(platform)
    assert second == ask(platform, "poet/2") and second[0] == "poet/2"
    rolled = platform.loraplex("alias", "rollback", "poet@prod")
    assert rolled.stdout.strip() == "poet@prod is 1", rolled.stderr
    assert ask(platform) == first
    ids = [model["id"] for model in platform.http().get("/v1/models").json()["data"]]
    assert {"poet@prod", "poet/1", "poet/2"} < set(ids)


def test_what_runs_keeps_its_version(platform: Platform, poet: str) -> None:
    put(platform, v1=1)
    said = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 0}
    whole = dict(said, model="poet/1", max_tokens=64, extra_body={"ignore_eos": True})
    client: Any = platform.openai()
    alone = client.chat.completions.create(**whole).choices[0].message.content
    stream = client.chat.completions.create(**whole | {"model": "poet@prod"}, stream=True)
    text = next(stream).choices[0].delta.content or ""
    put(platform, v2=1)
    assert ask(platform)[0] == "poet/2"
    for chunk in stream:
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
    assert text == alone


def test_traffic_is_split_by_weight_and_each_user_stays_where_he_is(
    platform: Platform, poet: str
) -> None:
    split = platform.loraplex("alias", "set", "poet@prod", "1=80", "2=20")
    assert split.stdout.strip() == "poet@prod is 1: 80%, 2: 20%", split.stderr
    of_user = {f"user {i}": ask(platform, user=f"user {i}", max_tokens=1)[0] for i in range(60)}
    counts = Counter(of_user.values())
    assert 36 <= counts["poet/1"] <= 59 and counts.total() == 60, counts
    for user in ("user 1", "user 2", "user 3"):
        assert ask(platform, user=user, max_tokens=1)[0] == of_user[user]
    promoted = platform.loraplex("alias", "promote", "poet@prod")
    assert promoted.stdout.strip() == "poet@prod is 2", promoted.stderr
    assert {ask(platform, user=user, max_tokens=1)[0] for user in list(of_user)[:8]} == {"poet/2"}
    again = platform.loraplex("alias", "promote", "poet@prod")
    assert again.returncode == 1 and "one version already" in again.stderr


@pytest.mark.parametrize(
    ("path", "versions", "status", "named"),
    [
        (PATH, {}, 400, "versions"),
        (PATH, {"9": 1}, 404, "poet/9"),
        (PATH, {"1": 0}, 400, "versions"),
        (PATH, {"x": 1}, 400, "versions"),
        (PATH.replace("prod", "Prod"), {"1": 1}, 400, "no name of an alias"),
        (PATH.replace("poet", "none"), {"1": 1}, 404, "none"),
    ],
)
def test_what_cannot_be_is_refused(
    path: str, versions: dict[str, int], status: int, named: str, platform: Platform, poet: str
) -> None:
    answer = platform.http().put(path, json={"versions": versions})
    assert answer.status_code == status and named in answer.text


def test_a_version_that_an_alias_means_stays(platform: Platform, poet: str) -> None:
    put(platform, v1=1)
    kept = platform.http().delete("/api/v1/adapters/poet/1")
    assert kept.status_code == 409 and "poet@prod" in kept.json()["detail"]
    assert platform.loraplex("alias", "rm", "poet@prod").returncode == 0
    gone = platform.http().post(
        "/v1/chat/completions",
        json={"model": "poet@prod", "messages": [{"role": "user", "content": "a"}]},
    )
    assert gone.status_code == 404
