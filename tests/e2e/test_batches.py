"""Files and batches through OpenAI's client, through restarts of everything."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.running import Platform, until

pytestmark = pytest.mark.e2e

URL = "/v1/chat/completions"


@pytest.fixture
def client(platform: Platform) -> openai.OpenAI:
    return platform.openai().with_options(max_retries=3)


def request(name: str, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Say {name}."}]
    body = {"model": "chat", "messages": messages, "max_tokens": 12, "temperature": 0}
    return {"custom_id": name, "method": "POST", "url": URL, "body": body | changes}


def upload(client: openai.OpenAI, lines: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(each) + "\n" for each in lines)
    return client.files.create(file=("in.jsonl", text.encode()), purpose="batch").id


def begin(client: openai.OpenAI, lines: list[dict[str, Any]], **options: Any) -> Any:
    settings: Any = {"endpoint": URL, "completion_window": "24h"} | options
    return client.batches.create(input_file_id=upload(client, lines), **settings)


def ended(client: openai.OpenAI, batch: str) -> Any:
    end = ("completed", "failed", "cancelled", "expired")
    return until(lambda: client.batches.retrieve(batch), lambda b: b.status in end, 120)


def results(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    lines = client.files.content(file).text.splitlines()
    found = {line["custom_id"]: line for line in map(json.loads, lines)}
    assert len(found) == len(lines), "each once"
    return found


def test_files_are_stored_listed_read_and_deleted(client: openai.OpenAI) -> None:
    content = b'{"a": 1}\n' * 3
    made = client.files.create(file=("data.jsonl", content), purpose="fine-tune")
    assert (made.bytes, made.filename, made.purpose) == (27, "data.jsonl", "fine-tune")
    assert client.files.content(made.id).content == content
    assert made.id in [file.id for file in client.files.list(purpose="fine-tune")]
    assert made.id not in [file.id for file in client.files.list(purpose="batch")]
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("empty", b""), purpose="batch")


def test_a_batch_answers_each_line(client: openai.OpenAI) -> None:
    lines = [request(f"word {number}") for number in range(8)]
    lines.append(request("adapter", model="chat:pirate/1"))
    lines.append(request("unknown", model="nothing"))
    lines.append(request("wrong", temperature=9))
    made = begin(client, lines, metadata={"run": "1"})
    assert (made.status, made.metadata) == ("validating", {"run": "1"})
    batch = ended(client, made.id)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (11, 9, 2)
    assert batch.status == "completed" and batch.completed_at >= batch.in_progress_at
    done = results(client, batch.output_file_id)
    failed = results(client, batch.error_file_id)
    assert {*done} == {each["custom_id"] for each in lines[:9]}
    body = done["word 3"]["response"]["body"]
    assert done["word 3"]["response"]["status_code"] == 200 and body["object"] == "chat.completion"
    direct = client.chat.completions.create(**request("word 3")["body"])
    assert body["choices"][0]["message"]["content"] == direct.choices[0].message.content
    codes = {name: line["response"]["status_code"] for name, line in failed.items()}
    assert codes == {"unknown": 404, "wrong": 400}
    assert failed["wrong"]["response"]["body"]["error"]["param"] == "temperature"
    assert batch.id in [each.id for each in client.batches.list(limit=5)]


def test_embeddings_come_by_batch_as_they_come_alone(client: openai.OpenAI) -> None:
    url = {"url": "/v1/embeddings", "method": "POST"}
    bodies = {
        "base": {"model": "chat", "input": ["a text", "another"]},
        "adapter": {"model": "chat:pirate/1", "input": "a text", "encoding_format": "base64"},
        "short": {"model": "chat", "input": "a text", "dimensions": 8},
        "too many": {"model": "chat", "input": "a text", "dimensions": 9999},
    }
    lines = [{"custom_id": name, "body": body} | url for name, body in bodies.items()]
    batch = ended(client, begin(client, lines, endpoint="/v1/embeddings").id)
    done = results(client, batch.output_file_id)
    assert list(results(client, batch.error_file_id)) == ["too many"]
    for name, line in done.items():
        body = line["response"]["body"]
        alone = client.embeddings.with_raw_response.create(
            **{"encoding_format": "float"} | bodies[name]  # type: ignore[arg-type]
        )
        assert body == json.loads(alone.text), name
    assert len(done["short"]["response"]["body"]["data"][0]["embedding"]) == 8


def test_a_file_that_is_wrong_fails_before_anything_runs(client: openai.OpenAI) -> None:
    batch = ended(client, begin(client, [request("a"), request("a")]).id)
    assert batch.status == "failed"
    (error,) = batch.errors.data
    assert (error.line, error.code) == (2, "duplicate_custom_id")


WRONG: list[tuple[Callable[[openai.OpenAI], Any], str]] = [
    (lambda c: begin(c, [request("a")], endpoint="/v1/images"), "endpoint"),
    (lambda c: begin(c, [request("a")], completion_window="1h"), "completion_window"),
]


@pytest.mark.parametrize(("call", "param"), WRONG)
def test_what_cannot_be_is_refused_by_name(
    client: openai.OpenAI, call: Callable[[openai.OpenAI], Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        call(client)
    assert refused.value.param == param


def under_way(client: openai.OpenAI, lines: int, tokens: int) -> Any:
    """A batch that takes a while, once some of it is done."""
    extras = {"max_tokens": tokens, "ignore_eos": True}
    made = begin(client, [request(f"long {number}", **extras) for number in range(lines)])
    return until(
        lambda: client.batches.retrieve(made.id),
        lambda batch: batch.request_counts and batch.request_counts.completed > 2,
    )


@pytest.fixture
def endless(client: openai.OpenAI) -> Iterator[Any]:
    """One that is cancelled before its end on any machine."""
    made = under_way(client, lines=500, tokens=60)
    yield made
    if client.batches.retrieve(made.id).status == "in_progress":
        client.batches.cancel(made.id)


def test_a_batch_outlives_the_api_and_the_replica(
    platform: Platform, client: openai.OpenAI
) -> None:
    long = under_way(client, lines=30, tokens=60)
    (replica,) = platform.deployment("chat")["replicas"]
    platform.process("api").kill()
    platform.replica_process(replica["id"]).kill()
    batch = ended(platform.openai().with_options(max_retries=20), long.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 30)
    done = results(client, batch.output_file_id)
    assert all(
        line["response"]["body"]["usage"]["completion_tokens"] == 60 for line in done.values()
    )


def test_a_batch_that_is_cancelled_keeps_what_is_done(client: openai.OpenAI, endless: Any) -> None:
    assert client.batches.cancel(endless.id).status == "cancelling"
    batch = ended(client, endless.id)
    assert batch.status == "cancelled" and batch.cancelled_at
    done = results(client, batch.output_file_id)
    assert 2 < len(done) < 500 and len(done) == batch.request_counts.completed
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(begin_and_end(client))


def test_a_batch_that_is_cancelled_after_a_crash_delivers_what_is_charged(
    platform: Platform, client: openai.OpenAI
) -> None:
    """With a key of its own: what others asked before may not be in the books yet."""
    http = platform.http()
    key = http.post("/api/v1/keys", json={"name": "lost", "scopes": ["inference"]}).json()

    def charged() -> int:
        query = {"by": ["key", "status"]}
        lines = http.get("/api/v1/usage", params=query).json()["data"]
        mine = (line for line in lines if line["key"] == key["id"])
        return sum(line["answers"] for line in mine if line["status"] == "length")

    def settled() -> bool:
        return not sum(replica["running"] for replica in platform.deployment("chat")["replicas"])

    made = under_way(client.with_options(api_key=key["key"]), lines=500, tokens=80)
    platform.process("api").kill()
    patient = platform.openai().with_options(max_retries=20)
    patient.batches.cancel(made.id)
    batch = ended(patient, made.id)
    assert batch.status == "cancelled"
    done = results(patient, batch.output_file_id)
    until(settled, lambda is_so: is_so)
    assert until(charged, lambda count: count >= len(done)) == len(done)


def begin_and_end(client: openai.OpenAI) -> str:
    return str(ended(client, begin(client, [request("short")]).id).id)


def test_others_go_first(platform: Platform, client: openai.OpenAI, endless: Any) -> None:
    """While a batch runs, a request of somebody else is answered as if it were alone."""
    answer = client.chat.completions.create(**request("hello")["body"])
    assert answer.choices[0].message.content
    assert client.batches.retrieve(endless.id).status == "in_progress"
