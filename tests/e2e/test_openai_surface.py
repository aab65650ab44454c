"""The OpenAI surface through the unmodified client: answers, and errors that say what to do."""

import json
import math
import sys
from http.client import HTTPConnection
from itertools import accumulate
from pathlib import Path
from typing import Any

import openai
import pytest

from benchmarks.environments import run
from tests.conftest import REPOSITORY
from tests.e2e.running import Platform

pytestmark = pytest.mark.e2e

HELLO: list[Any] = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(platform: Platform) -> openai.OpenAI:
    return platform.openai()


def test_chat_without_streaming(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chat", messages=HELLO, max_completion_tokens=5, temperature=0
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5


def test_completions_stream_and_not_from_text_and_tokens(client: openai.OpenAI) -> None:
    whole = client.completions.create(
        model="chat", prompt="The capital of France is", max_tokens=8, temperature=0
    )
    chunks = client.completions.create(
        model="chat", prompt="The capital of France is", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    from_ids = client.completions.create(model="chat", prompt=[504, 3575], max_tokens=2)
    assert from_ids.usage is not None and from_ids.usage.prompt_tokens == 2


def test_a_stop_string_ends_the_answer_and_is_not_shown(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="chat",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        stop=[" is"],
    )
    assert answer.choices[0].message.content == "The capital of France"
    assert answer.choices[0].finish_reason == "stop"


def test_a_seed_repeats_the_answer(client: openai.OpenAI) -> None:
    def sample(seed: int) -> str | None:
        answer = client.chat.completions.create(
            model="chat", messages=HELLO, max_tokens=12, temperature=1.5, seed=seed
        )
        return answer.choices[0].message.content

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    ids = [m.id for m in client.models.list()]
    assert {"chat", "json/1", "pirate/1"} <= set(ids)
    for name in ("chat", "pirate/1", "chat:pirate/1"):
        assert client.models.retrieve(name).id == name


@pytest.mark.parametrize(
    ("change", "kind", "code", "param"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "pirate/9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"model": "chat:pirate/9"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, "invalid_value", "messages"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"max_tokens": 10**5}, openai.BadRequestError, "context_length_exceeded", "messages"),
        ({"extra_body": {"top_k": "x"}}, openai.BadRequestError, "invalid_value", "top_k"),
        ({"messages": "hi"}, openai.BadRequestError, "invalid_value", "messages"),
        ({"extra_body": {"top_k": 10**30}}, openai.BadRequestError, "invalid_value", "top_k"),
        ({"n": 0}, openai.BadRequestError, "invalid_value", "n"),
        ({"n": 129}, openai.BadRequestError, "invalid_value", "n"),
        (
            {"frequency_penalty": 3},
            openai.BadRequestError,
            "invalid_value",
            "frequency_penalty",
        ),
        (
            {"extra_body": {"min_tokens": 9}, "max_tokens": 8},
            openai.BadRequestError,
            "invalid_value",
            "min_tokens",
        ),
        ({"top_logprobs": 3}, openai.BadRequestError, "invalid_value", "top_logprobs"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "invalid_value", "stop"),
        (
            {"extra_body": {"frobnicate": 1}},
            openai.BadRequestError,
            "unsupported_parameter",
            "frobnicate",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI,
    change: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
    param: str,
) -> None:
    with pytest.raises(kind) as refused:
        client.chat.completions.create(**{"model": "chat", "messages": HELLO} | change)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert refused.value.response.headers["x-request-id"]


@pytest.mark.parametrize("prompt", ["", [], [[]], [1, "a"], [99_999_999], "\ud800"])
def test_prompts_that_are_none_are_refused(platform: Platform, prompt: Any) -> None:
    body = json.dumps({"model": "chat", "prompt": prompt})  # escapes half a surrogate pair
    headers = {"content-type": "application/json"}
    answer = platform.http().post("/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_penalties_bias_and_structured_output_reach_the_engine(client: openai.OpenAI) -> None:
    def answer(**options: Any) -> str:
        made = client.chat.completions.create(
            model="chat", messages=HELLO, max_tokens=40, temperature=0, **options
        )
        return made.choices[0].message.content or ""

    plain = answer()
    assert answer(frequency_penalty=2.0, presence_penalty=2.0) != plain
    assert answer(extra_body={"repetition_penalty": 1.8}) != plain
    ids = client.completions.create(
        model="chat", prompt=[504], max_tokens=5, temperature=0, logit_bias={"30": 100}
    )
    assert len(set(ids.choices[0].text)) == 1, "one token over and over"
    schema = {
        "type": "object",
        "properties": {"greeting": {"type": "string", "maxLength": 20}},
        "required": ["greeting"],
        "additionalProperties": False,
    }
    strict: Any = {"type": "json_schema", "json_schema": {"name": "greeting", "schema": schema}}
    assert set(json.loads(answer(response_format=strict))) == {"greeting"}
    broken: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "nothing"}},
    }
    with pytest.raises(openai.BadRequestError) as refused:
        answer(response_format=broken)
    assert refused.value.code == "grammar_refused"


def test_several_answers_stream_side_by_side_and_equal_those_at_once(
    client: openai.OpenAI,
) -> None:
    options: Any = {"model": "chat", "messages": HELLO, "n": 3, "seed": 5, "temperature": 1.2}
    options["max_tokens"] = 10
    whole = client.chat.completions.create(**options)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert whole.usage is not None and whole.usage.completion_tokens <= 30
    one = client.chat.completions.create(**options | {"n": 1})
    assert one.choices[0].message.content == texts[0], "the first has the seed itself"
    assert one.usage is not None and one.usage.prompt_tokens == whole.usage.prompt_tokens
    streamed, ends = ["", "", ""], []
    chunks = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
        last = chunk.usage
    assert streamed == texts and sorted(ends) == [0, 1, 2]
    assert last is not None and last.total_tokens == whole.usage.total_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_chat(client: openai.OpenAI, stream: bool) -> None:
    answer = client.chat.completions.create(
        **{"model": "chat", "messages": HELLO, "max_tokens": 6, "temperature": 0},
        **{"logprobs": True, "top_logprobs": 4, "stream": stream},
    )
    choices = [c.choices[0] for c in answer] if stream else [answer.choices[0]]
    tokens = [t for c in choices if c.logprobs for t in c.logprobs.content]
    text = "".join((c.delta if stream else c.message).content or "" for c in choices)
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == text
    for token in tokens:
        best = token.top_logprobs
        assert len(best) == 4 and (best[0].token, best[0].logprob) == (token.token, token.logprob)
        assert [b.logprob for b in best] == sorted((b.logprob for b in best), reverse=True)
        assert sum(math.exp(b.logprob) for b in best) <= 1.0001


def test_completions_of_several_prompts_with_echo_logprobs_and_the_best(
    client: openai.OpenAI,
) -> None:
    prompts = ["The capital of France is", "Water is made of"]
    options: Any = {"model": "chat", "prompt": prompts, "max_tokens": 5, "temperature": 0}
    echoed = client.completions.create(**options, echo=True)
    assert [c.index for c in echoed.choices] == [0, 1]
    assert all(c.text.startswith(p) for c, p in zip(echoed.choices, prompts, strict=True))
    plain = client.completions.create(**options, logprobs=2)
    for choice, with_prompt, prompt in zip(plain.choices, echoed.choices, prompts, strict=True):
        assert prompt + choice.text == with_prompt.text
        known = choice.logprobs
        assert known is not None and "".join(known.tokens or []) == choice.text
        assert known.text_offset == [
            len("".join((known.tokens or [])[:i])) for i in range(len(known.tokens or []))
        ]
        assert all(len(best) == 2 for best in known.top_logprobs or [])
    for stream in (False, True):
        got = client.completions.create(**options, echo=True, logprobs=2, stream=stream)
        chunks = list(got) if stream else [got]
        for index, expected in enumerate(echoed.choices):
            choices = [c for chunk in chunks for c in chunk.choices if c.index == index]
            parts = [c.logprobs for c in choices if c.logprobs]
            assert "".join(c.text for c in choices) == expected.text
            assert "".join(t for p in parts for t in p.tokens) == expected.text
            first, *others = [v for p in parts for v in p.token_logprobs]
            assert first is None and all(v < 0 for v in others)
            assert others[-5:] == pytest.approx(
                plain.choices[index].logprobs.token_logprobs, abs=1e-3
            )
            assert parts[0].top_logprobs[0] is None
            offsets = [0, *accumulate(len(t) for p in parts for t in p.tokens)][:-1]
            assert [v for p in parts for v in p.text_offset] == offsets
    scores = client.completions.create(**options | {"max_tokens": 0}, echo=True, logprobs=0)
    for choice, prompt in zip(scores.choices, prompts, strict=True):
        assert (choice.text, choice.finish_reason) == (prompt, "length")
        assert choice.logprobs is not None and "".join(choice.logprobs.tokens or []) == prompt
    assert scores.usage is not None and scores.usage.completion_tokens == 0
    options |= {"prompt": prompts[0], "temperature": 1.5, "seed": 3, "logprobs": 0}
    four = client.completions.create(**options, n=4)
    best = client.completions.create(**options, n=1, best_of=4)

    def likelihood(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    assert best.choices[0].text == max(four.choices, key=likelihood).text
    assert best.usage == four.usage


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_in_other_scripts_is_scored_once_for_all_its_answers(
    client: openai.OpenAI, stream: bool
) -> None:
    prompt = "Hi 🙂🙂 漢字 there"
    got: Any = client.completions.create(
        **{"model": "chat", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 4},
        **{"n": 3, "seed": 1, "stream": stream},
    )
    choices = [c for chunk in (got if stream else [got]) for c in chunk.choices]
    prompts = set()
    for index in range(3):
        parts = [c.logprobs for c in choices if c.index == index and c.logprobs]
        offsets = [v for p in parts for v in p.text_offset]
        values = [v for p in parts for v in p.token_logprobs]
        text = "".join(c.text for c in choices if c.index == index)
        assert text.startswith(prompt) and offsets == sorted(offsets) and offsets[0] == 0
        assert len(prompt) in offsets
        prompts.add(tuple(values[: offsets.index(len(prompt))]))
    assert len(prompts) == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"prompt": ["a"] * 65, "n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": True, "suffix": "x"}, "echo"),
        ({"echo": True, "logprobs": 0, "prompt": "a " * 2000, "n": 20, "max_tokens": 1}, "echo"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_completions_that_are_refused(
    client: openai.OpenAI, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "chat", "prompt": "a"} | change)
    assert refused.value.param == param


def test_a_body_that_is_not_json_is_a_400(platform: Platform) -> None:
    headers = {"content-type": "application/json"}
    answer = platform.http().post("/v1/chat/completions", content="{", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_temperature_near_zero_is_greedy(client: openai.OpenAI) -> None:
    def answer(temperature: float) -> str | None:
        made = client.chat.completions.create(
            model="chat", messages=HELLO, max_tokens=6, temperature=temperature
        )
        return made.choices[0].message.content

    assert answer(1e-40) == answer(0)


def test_a_wrong_key_is_a_401(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="API key"):
        client.with_options(api_key="pb_wrong").models.list()


def test_no_route_is_open_but_health_and_docs(platform: Platform) -> None:
    http = platform.http()
    del http.headers["authorization"]
    assert http.get("/health").status_code == 200
    for path in ("/v1/models", "/api/v1/deployments", "/api/v1/adapters"):
        assert http.get(path).status_code == 401
    assert http.post("/v1/chat/completions", json={}).status_code == 401


def test_without_a_key_no_body_is_read(platform: Platform) -> None:
    http = platform.http()
    http.headers["authorization"] = "Bearer pb_wrong"
    answer = http.post("/v1/chat/completions", content=b"[" * 2**20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("key", "status"), [("", 413), ("pb_wrong", 401)])
def test_who_is_refused_while_sending_can_send_on_and_hears_why(
    platform: Platform, key: str, status: int
) -> None:
    """As a proxy does that keeps no connection: a reset would be a dead server to it."""
    api = platform.http()
    connection = HTTPConnection(api.base_url.host, api.base_url.port)
    bearer = f"Bearer {key}" if key else api.headers["authorization"]
    headers = {"authorization": bearer, "connection": "close"}
    connection.request("POST", "/v1/chat/completions", b" " * (17 * 2**20), headers)
    answer = connection.getresponse()
    assert (answer.status, "error" in json.loads(answer.read())) == (status, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_bound_is_a_413(platform: Platform, chunked: bool) -> None:
    body = b" " * (17 * 2**20)
    answer = platform.http().post("/v1/chat/completions", content=iter([body]) if chunked else body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_events_carry_request_and_position(platform: Platform) -> None:
    body = {"model": "chat", "messages": HELLO, "max_tokens": 4, "stream": True, "temperature": 0}
    lines = platform.http().post("/v1/chat/completions", json=body).text.splitlines()
    ids = [line.removeprefix("id: ").split(":") for line in lines if line.startswith("id: ")]
    assert len({request for request, _ in ids}) == 1
    positions = [int(position) for _, position in ids]
    assert positions == sorted(positions) and positions[-2:] == [4, 5], "the end is one more"
    assert [line for line in lines if line][-1] == "data: [DONE]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "UPPER", "base_model": "org/m"}, "name"),
        ({"name": "a", "base_model": "../nowhere"}, "base_model"),
        ({"name": "a", "base_model": "org/m", "min_replicas": 3}, "min_replicas"),
        ({"name": "a", "base_model": "org/m", "surprise": 1}, "surprise"),
        ({"name": "a"}, "base_model"),
    ],
)
def test_bad_deployments_are_problems(platform: Platform, body: dict[str, Any], param: str) -> None:
    answer = platform.http().post("/api/v1/deployments", json=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["param"] == param


def test_a_name_is_taken_once_and_free_after_deletion(platform: Platform) -> None:
    http = platform.http()
    body = {"name": "twice", "base_model": "org/nowhere"}
    assert http.post("/api/v1/deployments", json=body).status_code == 201
    assert http.post("/api/v1/deployments", json=body).status_code == 409
    assert http.delete("/api/v1/deployments/twice").status_code == 200
    assert http.post("/api/v1/deployments", json=body).status_code == 201
    assert http.delete("/api/v1/deployments/twice").status_code == 200


def test_the_example_runs(platform: Platform) -> None:
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    environment = {"LORAPLEX_URL": platform.url, "LORAPLEX_API_KEY": key}
    example = REPOSITORY / "examples" / "openai_sdk_day.py"
    printed = run(Path(sys.executable), example, environment)
    assert "Arrr" in printed and "later: " in printed
    assert "limited: " in printed and "1 concurrent" in printed and "used: " in printed
    assert "openai-day" not in printed.rstrip().splitlines()[-1]


def test_embeddings_of_texts_and_tokens_by_base_and_adapter(client: openai.OpenAI) -> None:
    texts = ["The cat sat on the mat.", "A cat is on a mat.", "Stock prices fell sharply."]
    answer = client.embeddings.create(model="chat", input=texts)
    assert [each.index for each in answer.data] == [0, 1, 2]
    cat, same, stocks = (each.embedding for each in answer.data)

    def like(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert math.isclose(like(cat, cat), 1, rel_tol=1e-4)
    assert like(cat, same) > like(cat, stocks)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15
    floats = client.embeddings.create(model="chat", input=texts[0], encoding_format="float")
    assert math.isclose(like(floats.data[0].embedding, cat), 1, rel_tol=1e-4)
    short = client.embeddings.create(model="chat", input=[[504, 3575]], dimensions=64)
    assert len(short.data[0].embedding) == 64
    assert math.isclose(like(short.data[0].embedding, short.data[0].embedding), 1, rel_tol=1e-4)
    tuned = client.embeddings.create(model="chat:pirate/1", input=texts[0])
    assert like(tuned.data[0].embedding, cat) < 0.9999
    last = client.embeddings.create(model="chat", input=texts[0], extra_body={"pooling": "last"})
    assert like(last.data[0].embedding, cat) < 0.99
    for wrong in ({"input": []}, {"input": ""}, {"dimensions": 10_000}):
        settings: Any = {"model": "chat", "input": "x"} | wrong
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**settings)
