"""A shared deployment, its limits and its books, as its users meet them."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import ADAPTERS
from tests.e2e.running import Platform, until

ASK: Any = [{"role": "user", "content": "Where do you live?"}]


class Tenant:
    """Another one than the platform's own, with its admin key."""

    def __init__(self, platform: Platform, name: str) -> None:
        made = platform.loraplex("tenants", "create", name)
        assert made.returncode == 0, made.stderr
        key = platform.loraplex(
            *("keys", "create", "boss", "--scope", "admin", "--tenant", name, "--json")
        )
        self.key = json.loads(key.stdout)["key"]
        headers = {"authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=platform.url, headers=headers, timeout=120)
        self.openai = openai.OpenAI(
            base_url=f"{platform.url}/v1", api_key=self.key, max_retries=0, timeout=120
        )

    def usage(self, *by: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get("/api/v1/usage", params={"by": by, **query})
        assert answer.status_code == 200, answer.text
        data: list[dict[str, Any]] = answer.json()["data"]
        return data


@pytest.fixture(scope="module")
def acme(platform: Platform) -> Iterator[Tenant]:
    """`chat` is shared while these tests run."""
    assert platform.loraplex("share", "chat").returncode == 0
    yield Tenant(platform, "acme")
    assert platform.loraplex("share", "chat", "--off").returncode == 0
    assert platform.loraplex("limit", "chat", "--none").returncode == 0


def test_a_shared_deployment_is_everybodys_to_ask_and_nobodys_to_change(
    platform: Platform, acme: Tenant
) -> None:
    listed = acme.http.get("/api/v1/deployments").json()["data"]
    assert [(each["name"], each["shared"]) for each in listed] == [("chat", True)]
    assert [model.id for model in acme.openai.models.list()] == ["chat"]
    for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/events")):
        body = {"max_replicas": 2} if method == "PATCH" else None
        answer = acme.http.request(method, f"/api/v1/deployments/chat{path}", json=body)
        assert answer.status_code == 403, answer.text
    mine = {"name": "mine", "base_model": "org/m", "shared": True}
    assert acme.http.post("/api/v1/deployments", json=mine).status_code == 403


def test_a_tenant_brings_its_own_adapters(platform: Platform, acme: Tenant) -> None:
    with pytest.raises(openai.NotFoundError):
        acme.openai.chat.completions.create(model="chat:pirate/1", messages=ASK)
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": acme.key}
    other = Platform(platform.home, platform.environment | environment)
    added = other.loraplex(
        *("adapters", "add", "buccaneer", str(ADAPTERS / "pirate")),
    )
    assert added.returncode == 0, added.stderr
    mine = acme.openai.chat.completions.create(
        model="chat:buccaneer/1", messages=ASK, max_tokens=12, temperature=0
    )
    ours = platform.openai().chat.completions.create(
        model="chat:pirate/1", messages=ASK, max_tokens=12, temperature=0
    )
    assert mine.choices[0].message.content == ours.choices[0].message.content


def test_limits_are_told_in_headers_and_kept(platform: Platform, acme: Tenant) -> None:
    limits = {"requests_per_min": 3, "tokens_per_min": 100_000}
    assert platform.loraplex("limit", "chat", "--requests-per-min", "3").returncode == 0
    patched = platform.http().patch("/api/v1/deployments/chat", json={"limits": limits})
    assert patched.json()["limits"]["tokens_per_min"] == 100_000
    # Each tenant has a bucket of its own; and a replica is there, so that the rest takes no time.
    platform.openai().chat.completions.create(model="chat", messages=ASK, max_tokens=4)
    for left in ("2", "1", "0"):
        raw = acme.openai.chat.completions.with_raw_response.create(
            model="chat", messages=ASK, max_tokens=4
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "3"
        assert raw.headers["x-ratelimit-remaining-requests"] == left
        assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 100_000
        assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
    with pytest.raises(openai.RateLimitError) as refused:
        acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=4)
    assert refused.value.code == "rate_limit_exceeded"
    assert "3 requests per minute" in refused.value.message
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after"]) <= 20
    assert 0 < int(headers["retry-after-ms"]) <= 20_000
    platform.openai().chat.completions.create(model="chat", messages=ASK, max_tokens=4)
    assert platform.loraplex("limit", "chat", "--none").returncode == 0
    acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=4)


def test_who_retries_as_the_header_says_gets_through(platform: Platform, acme: Tenant) -> None:
    assert platform.loraplex("limit", "chat", "--requests-per-min", "120").returncode == 0
    patient = acme.openai.with_options(max_retries=5)
    for _ in range(3):
        patient.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
    assert platform.loraplex("limit", "chat", "--none").returncode == 0


def test_as_many_answers_at_once_as_the_plan_says(platform: Platform, acme: Tenant) -> None:
    assert platform.loraplex("plans", "set", "one", "--concurrent", "1").returncode == 0
    assert platform.loraplex("tenants", "set", "acme", "--plan", "one").returncode == 0
    try:
        stream = acme.openai.chat.completions.create(
            model="chat",
            messages=ASK,
            max_tokens=200,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="1 concurrent"):
            acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
        with pytest.raises(openai.RateLimitError, match="by itself"):
            acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=1, n=2)
        *_, last = stream
        assert last.usage.completion_tokens == 200
        for _ in range(3):  # one after the other, each settled in time for the next
            acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
        left = acme.openai.chat.completions.create(
            model="chat", messages=ASK, max_tokens=200, stream=True
        )
        next(iter(left))
        left.close()  # the scaler settles what nobody waits for

        def free() -> bool:
            try:
                acme.openai.chat.completions.create(model="chat", messages=ASK, max_tokens=1)
            except openai.RateLimitError:
                return False
            return True

        until(free, lambda is_free: is_free, patience_s=40)
    finally:
        assert platform.loraplex("tenants", "set", "acme", "--plan", "none").returncode == 0
    assert platform.loraplex("plans", "rm", "one").returncode == 0


def test_the_books_say_what_the_answers_said(platform: Platform, acme: Tenant) -> None:
    """With a key of their own: what was asked before may not be in the books yet."""
    made = acme.http.post("/api/v1/keys", json={"name": "books", "scopes": ["inference"]}).json()
    asks = acme.openai.with_options(api_key=made["key"])

    def total() -> dict[str, Any]:
        lines = {line["key"]: line for line in acme.usage("key")}
        return lines.get(made["id"], {"requests": 0})

    spent = {"prompt_tokens": 0, "completion_tokens": 0}
    stopped = {"stop": ["e"], "max_tokens": 64, "extra_body": {"ignore_eos": True}}
    for options in ({}, {"n": 3}, stopped, {"model": "chat:buccaneer/1"}):
        settings: Any = {"model": "chat", "max_tokens": 8, "messages": ASK} | options
        usage = asks.chat.completions.create(**settings).usage
        assert usage is not None
        spent["prompt_tokens"] += usage.prompt_tokens
        spent["completion_tokens"] += usage.completion_tokens
    with pytest.raises(openai.BadRequestError):  # refused before the queue: no record
        asks.chat.completions.create(model="chat", messages=ASK, max_tokens=10**6)
    *_, last = asks.chat.completions.create(
        model="chat",
        messages=ASK,
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
    )
    spent["prompt_tokens"] += last.usage.prompt_tokens
    spent["completion_tokens"] += last.usage.completion_tokens
    after = until(total, lambda line: line["requests"] == 5)
    assert after["answers"] == 7
    assert {name: after[name] for name in spent} == spent
    assert after["failed"] == 0
    assert after["cost"] > 0 and after["replica_s"] > 0


def test_reports_by_key_and_adapter_and_for_spreadsheets(platform: Platform, acme: Tenant) -> None:
    by_adapter = {line["adapter"]: line["requests"] for line in acme.usage("adapter")}
    assert by_adapter["buccaneer/1"] == 2 and by_adapter[""] > 5
    keys = {each["name"]: each["id"] for each in acme.http.get("/api/v1/keys").json()["data"]}
    lines = acme.usage("key", "deployment")
    assert {(line["key"], line["deployment"]) for line in lines} == {
        (keys["boss"], "chat"),
        (keys["books"], "chat"),
    }
    assert len(acme.usage(bucket="hour")) >= 1
    text = acme.http.get("/api/v1/usage", params={"by": "adapter", "format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["adapter"]: int(row["requests"]) for row in rows} == by_adapter
    shown = platform.loraplex("usage", "--tenant", "acme", "--by", "adapter")
    assert "buccaneer/1" in shown.stdout, shown.stderr


def test_nobody_reads_anothers_books(platform: Platform, acme: Tenant) -> None:
    for other in ("dev", "*", "nobody"):
        answer = acme.http.get("/api/v1/usage", params={"of": other})
        assert answer.status_code == 404, other
    everybody = platform.http().get("/api/v1/usage", params={"of": "*", "by": "tenant"}).json()
    assert {"acme", "dev"} <= {line["tenant"] for line in everybody["data"]}
