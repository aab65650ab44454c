"""Nothing accepted is lost: clients that are cut off, come back, repeat themselves or give up."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import httpx
import openai
import psutil
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from api.requests.terms import deployment_of
from loraplex.apikeys import FIRST_TENANT
from loraplex.broker.connection import connect
from loraplex.keys import Lane
from loraplex.messages import Job, Sampling, encode
from tests.e2e.running import Platform, suspended, until

pytestmark = pytest.mark.e2e

CHAT: dict[str, Any] = {
    "model": "chat",
    "messages": [{"role": "user", "content": "Name three rivers of Europe."}],
    "max_tokens": 24,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
}
ENDLESS = CHAT | {"max_tokens": 4000, "ignore_eos": True}
CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"


def events(
    api: httpx.Client, url: str, body: dict[str, Any], last: str = "", **headers: str
) -> Iterator[ServerSentEvent]:
    if last:
        headers["last-event-id"] = last
    with connect_sse(api, "POST", url, json=body, headers=headers) as source:
        yield from source.iter_sse()


def running(platform: Platform) -> int:
    return sum(r["running"] for r in platform.deployment("chat")["replicas"])


@pytest.fixture(scope="module")
def other_api(platform: Platform) -> Iterator[httpx.Client]:
    with platform.another_api() as (api, _):
        yield api


STREAMS = {
    "chat": (CHAT_URL, CHAT),
    "three answers": (CHAT_URL, CHAT | {"n": 3, "temperature": 1.0, "seed": 5}),
    "stop string": (CHAT_URL, CHAT | {"stop": ["River", "\n3"], "max_tokens": 60}),
    "log-probabilities": (CHAT_URL, CHAT | {"logprobs": True, "top_logprobs": 2}),
    "scored echo": (
        COMPLETION_URL,
        {"model": "pirate/1", "prompt": ["One, two", "Hey 🙂"], "max_tokens": 5, "n": 2, "seed": 1}
        | {"echo": True, "logprobs": 1, "stream": True},
    ),
    "only the prompt": (
        COMPLETION_URL,
        {"model": "chat", "prompt": "One, two", "max_tokens": 0, "stream": True}
        | {"echo": True, "logprobs": 1, "stream_options": {"include_usage": True}},
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_after_any_event_at_another_process(
    platform: Platform, other_api: httpx.Client, name: str
) -> None:
    url, body = STREAMS[name]
    whole = list(events(platform.http(), url, body))
    assert whole[-1].data == "[DONE]"
    for cut in range(1, len(whole)):
        rest = list(events(other_api, url, body, whole[cut - 1].id))
        got = contents([*whole[:cut], *rest])
        assert got == contents(whole), f"cut after event {cut} of {len(whole)}"


def contents(stream: list[ServerSentEvent]) -> Any:
    """What a client makes of a stream, whatever pieces it came in."""
    assert [e.data for e in stream].count("[DONE]") == 1
    chunks = [json.loads(e.data) for e in stream if e.data != "[DONE]"]
    answers: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            answer = answers.setdefault(choice["index"], {"text": "", "ends": [], "tokens": []})
            delta = choice.get("delta", {})
            answer["text"] += delta.get("content") or choice.get("text", "")
            answer["ends"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            answer["roles"] = answer.get("roles", 0) + ("role" in delta)
            known = choice["logprobs"] or {}
            answer["tokens"] += known.get("content") or list(
                zip(*(known[k] for k in ("tokens", "token_logprobs", "text_offset")), strict=True)
                if "tokens" in known
                else ()
            )
    # How much of a prompt was cached depends on what ran there before.
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    usages = [{c: chunk["usage"][c] for c in counts} for chunk in chunks if chunk.get("usage")]
    return len({c["id"] for c in chunks}), answers, usages


def test_a_client_that_returns_in_time_loses_nothing(
    platform: Platform, other_api: httpx.Client
) -> None:
    """Cut off in the middle; the request goes on meanwhile, and its slot isn't freed."""
    body = CHAT | {"max_tokens": 120, "ignore_eos": True}
    undisturbed = contents(list(events(platform.http(), CHAT_URL, body)))
    got = []
    for event in events(platform.http(), CHAT_URL, body):
        got.append(event)
        if len(got) == 8:
            break
    for api in (other_api, platform.http()):
        resumed = []
        for event in events(api, CHAT_URL, body, got[-1].id):
            resumed.append(event)
            if api is other_api and len(resumed) == 8:
                break
        got += resumed
    answers = contents(got)[1:]
    assert answers == undisturbed[1:]


def test_a_client_that_stays_away_is_stopped_after_its_grace(platform: Platform) -> None:
    until(lambda: running(platform), lambda n: n == 0)
    stream = events(platform.http(), CHAT_URL, ENDLESS, **{"x-grace-seconds": "1"})
    last = next(event for event in stream if event.id)
    until(lambda: running(platform), lambda n: n == 1)
    stream.close()  # type: ignore[attr-defined]
    until(lambda: running(platform), lambda n: n == 0, patience_s=20)
    again = platform.http().post(CHAT_URL, json=ENDLESS, headers={"last-event-id": last.id})
    assert (again.status_code, again.json()["error"]["code"]) == (404, "request_not_found")


def test_what_a_killed_api_process_leaves_is_resumed_or_stopped(platform: Platform) -> None:
    until(lambda: running(platform), lambda n: n == 0)
    body = CHAT | {"max_tokens": 100, "ignore_eos": True}
    undisturbed = contents(list(events(platform.http(), CHAT_URL, body)))
    with platform.another_api() as (doomed, process):
        orphan = events(doomed, CHAT_URL, ENDLESS)
        next(orphan)
        stream = events(doomed, CHAT_URL, body)
        got = [next(stream) for _ in range(6)]
        process.kill()
    got += events(platform.http(), CHAT_URL, body, got[-1].id)
    assert contents(got)[1:] == undisturbed[1:]
    until(lambda: running(platform), lambda n: n == 0, patience_s=60)


def test_the_same_idempotency_key_runs_once(platform: Platform, other_api: httpx.Client) -> None:
    body = CHAT | {"stream": False, "temperature": 1.0}
    del body["stream_options"]
    headers = {"idempotency-key": "one"}

    def ask(api: httpx.Client) -> httpx.Response:
        return api.post(CHAT_URL, json=body, headers=headers)

    with ThreadPoolExecutor(6) as pool:
        apis = [platform.http(), other_api] * 3
        answers = list(pool.map(ask, apis))
    answers.append(ask(platform.http()))
    assert {a.status_code for a in answers} == {200}
    assert len({a.text for a in answers}) == 1, "a random seed, and yet one answer"
    other = platform.http().post(CHAT_URL, json=body | {"max_tokens": 3}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_request_is_looked_at_read_again_and_cancelled(platform: Platform) -> None:
    api = platform.http()
    stream = events(api, CHAT_URL, ENDLESS)
    first = next(stream)
    name = json.loads(first.data)["id"]
    assert api.get(f"/api/v1/requests/{name}").json()["state"] in ("queued", "running")
    until(lambda: running(platform), lambda n: n == 1)
    assert api.delete(f"/api/v1/requests/{name}").json()["cancelled"] is True
    *_, last, end = stream
    assert json.loads(last.data)["error"]["code"] == "cancelled"
    assert end.data == "[DONE]"
    until(lambda: running(platform), lambda n: n == 0, patience_s=20)
    assert api.get(f"/api/v1/requests/{name}").json()["state"] == "ended"
    assert api.delete(f"/api/v1/requests/{name}").json()["cancelled"] is False

    short = api.post(CHAT_URL, json={k: v for k, v in CHAT.items() if "stream" not in k}).json()
    again = api.get(f"/api/v1/requests/{short['id']}/answer")
    assert again.json() == short
    accept = {"accept": "text/event-stream"}
    assert api.get(f"/api/v1/requests/{short['id']}/answer", headers=accept).text.endswith(
        "data: [DONE]\n\n"
    )
    for missing in (api.get, api.delete):
        assert missing("/api/v1/requests/000000000000ffff").status_code == 404


def test_a_stream_is_resumed_by_the_same_request_only(platform: Platform) -> None:
    whole = list(events(platform.http(), CHAT_URL, CHAT))
    last = whole[5].id
    beyond = f"{last.partition(':')[0]}:999"
    refused, _ = events(platform.http(), CHAT_URL, CHAT, beyond)
    assert json.loads(refused.data)["error"]["param"] == "Last-Event-ID"
    other = platform.http().post(
        CHAT_URL, json=CHAT | {"temperature": 1}, headers={"last-event-id": last}
    )
    assert (other.status_code, other.json()["error"]["code"]) == (409, "last_event_of_another")
    path = f"/api/v1/requests/{last.partition(':')[0]}/answer"
    read = platform.http().get(path, headers={"last-event-id": last})
    text = "".join(
        choice["delta"].get("content") or ""
        for event in whole[:-1]
        for choice in json.loads(event.data)["choices"]
    )
    assert read.json()["choices"][0]["message"]["content"] == text


def test_a_queued_request_is_cancelled_and_its_client_told(platform: Platform) -> None:
    platform.deploy("sleepy", min_replicas=0)
    until(lambda: platform.deployment("sleepy")["status"], lambda s: s == "standby")
    stream = events(platform.http(), CHAT_URL, ENDLESS | {"model": "sleepy"})
    name = json.loads(next(stream).data)["id"]
    assert platform.http().delete(f"/api/v1/requests/{name}").json()["cancelled"] is True
    *_, last, _ = stream
    assert json.loads(last.data)["error"]["code"] == "cancelled"
    assert platform.loraplex("rm", "sleepy").returncode == 0


def test_who_cannot_wait_comes_later(platform: Platform) -> None:
    platform.deploy("later", min_replicas=0)
    until(lambda: platform.deployment("later")["status"], lambda s: s == "standby")
    api, body = platform.http(), {k: v for k, v in CHAT.items() if "stream" not in k}
    body |= {"model": "later"}
    sent = api.post(CHAT_URL, json=body, headers={"prefer": "respond-async"})
    assert (sent.status_code, sent.headers["preference-applied"]) == (202, "wait=0")
    assert api.get(sent.json()["status"]).json()["state"] in ("queued", "running")
    late = until(
        lambda: api.get(sent.headers["location"], headers={"prefer": "wait=1"}),
        lambda answer: answer.status_code != 202,
    )
    assert late.status_code == 200 and late.headers["x-request-id"] == sent.json()["id"]
    again = api.get(sent.headers["location"], headers={"prefer": "wait=0"})
    assert again.json() == late.json(), "it has ended: there is nothing to wait for"
    assert api.post(CHAT_URL, json=body, headers={"prefer": "wait=60"}).status_code == 200
    headers = {"prefer": "respond-async", "x-request-timeout-seconds": "1"}
    endless = body | {"max_tokens": 4000, "ignore_eos": True}
    short = api.post(CHAT_URL, json=endless, headers=headers)
    ended = until(lambda: api.get(short.json()["status"]).json()["state"], lambda s: s == "ended")
    assert ended and api.get(short.headers["location"]).status_code == 504, "not: nobody waited"
    for wrong in ("wait=x", "wait=-1", "wait=9999", "wait"):
        refused = api.post(CHAT_URL, json=body, headers={"prefer": wrong})
        assert refused.json()["error"]["param"] == "Prefer"
    path = "/deployments/later/generate"
    lorax = {"inputs": "One", "parameters": {"max_new_tokens": 4}}
    assert api.post(path, json=lorax, headers={"prefer": "respond-async"}).status_code == 202
    assert platform.loraplex("rm", "later").returncode == 0


def test_a_deadline_ends_a_request(platform: Platform) -> None:
    client = platform.openai()
    with pytest.raises(openai.APIStatusError) as late:
        client.chat.completions.create(
            model="chat",
            messages=CHAT["messages"],
            max_tokens=4000,
            extra_body={"ignore_eos": True},
            extra_headers={"x-request-timeout-seconds": "1.5"},
        )
    assert (late.value.status_code, late.value.code) == (504, "expired")
    until(lambda: running(platform), lambda n: n == 0, patience_s=20)


@pytest.mark.parametrize(
    "headers",
    [
        *({"last-event-id": "x"}, {"last-event-id": "abc:1.x"}, {"idempotency-key": "k" * 256}),
        *({"x-request-timeout-seconds": "0"}, {"x-request-timeout-seconds": "soon"}),
        *({"x-grace-seconds": "-1"}, {"x-grace-seconds": "nan"}),
    ],
    ids=str,
)
def test_headers_that_make_no_sense_are_refused(
    platform: Platform, headers: dict[str, str]
) -> None:
    answer = platform.http().post(CHAT_URL, json=CHAT, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].lower() in headers


def nobody_starts_again(platform: Platform) -> AbstractContextManager[None]:
    """What dies, as long as that is a process of ours and not of a container."""
    return suspended(platform.process("supervisor")) if platform.takes_paths else nullcontext()


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_a_queue_that_is_full_or_away_is_said_at_once(platform: Platform) -> None:
    """And what was accepted before is answered to its end, once each token."""
    body = CHAT | {"max_tokens": 120, "ignore_eos": True}
    undisturbed = contents(list(events(platform.http(), CHAT_URL, body)))
    valkey = connect(platform.redis_url)
    was = valkey.config_get("maxmemory")["maxmemory"]
    stream = events(platform.http(), CHAT_URL, body)
    got = [next(stream) for _ in range(5)]
    valkey.config_set("maxmemory", 1)
    full = platform.http().post(CHAT_URL, json=CHAT)
    assert (full.status_code, full.json()["error"]["code"]) == (503, "queue_memory_full")
    assert int(full.headers["retry-after"]) > 0
    valkey.config_set("maxmemory", was)
    with nobody_starts_again(platform):
        server = platform.process("valkey")
        server.kill()
        until(lambda: has_ended(server), bool)
        refused = platform.http().post(CHAT_URL, json=CHAT)
    if platform.takes_paths or refused.status_code != 200:  # an engine starts it again at once
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_unavailable")
        assert int(refused.headers["retry-after"]) > 0
    got += list(stream)
    assert contents(got)[1:] == undisturbed[1:]


def test_dead_letters_are_listed_shown_retried_and_dropped(platform: Platform) -> None:
    first = next(events(platform.http(), CHAT_URL, CHAT))
    deployment = deployment_of(first.id.partition(":")[0])
    lane = Lane(platform.deployment("chat")["base_model"], deployment)
    valkey = connect(platform.redis_url)
    names = [deployment.removeprefix("dep-") + 24 * digit for digit in "12"]
    for name in names:
        job = Job(name, "api-1", FIRST_TENANT, None, [504, 260, 216], Sampling(3, 0), 1.0)
        valkey.xadd(lane.dead_letters, {"j": encode(job), "error": "3 replicas died."})
    listed = json.loads(platform.loraplex("dead-letters", "list", "--json").stdout)
    assert [letter["request"] for letter in listed] == names
    shown = platform.loraplex("dead-letters", "show", names[0]).stdout
    assert "prompt:" in shown and "3 replicas died." in shown
    again = platform.loraplex("dead-letters", "retry", names[0])
    request = again.stdout.split()[3].rstrip(".")
    answer = platform.http().get(f"/api/v1/requests/{request}/answer")
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert platform.loraplex("dead-letters", "drop", names[1]).returncode == 0
    assert json.loads(platform.loraplex("dead-letters", "list", "--json").stdout) == []
    gone = platform.loraplex("dead-letters", "show", names[1])
    assert gone.returncode != 0 and "no dead letter" in gone.stderr


def test_a_frozen_replica_is_fenced(platform: Platform) -> None:
    body = CHAT | {"max_tokens": 150, "ignore_eos": True}
    undisturbed = contents(list(events(platform.http(), CHAT_URL, body)))
    got = []
    frozen = None
    for event in events(platform.http(), CHAT_URL, body):
        got.append(event)
        if len(got) == 10:
            (replica,) = platform.deployment("chat")["replicas"]
            frozen = platform.replica_process(replica["id"])
            frozen.suspend()
    assert contents(got)[1:] == undisturbed[1:]
    assert frozen is not None
    with suppress(psutil.NoSuchProcess):
        frozen.resume()
