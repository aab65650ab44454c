"""/v1/responses through OpenAI's client."""

import json
import time
from typing import Any

import openai
import pytest

from tests.e2e.running import Platform, until

pytestmark = pytest.mark.e2e

ASK = "Where do you live?"


@pytest.fixture
def client(platform: Platform) -> openai.OpenAI:
    return platform.openai()


def create(client: openai.OpenAI, **options: Any) -> Any:
    settings: Any = {"model": "chat", "input": ASK, "temperature": 0, "max_output_tokens": 24}
    return client.responses.create(**settings | options)


def test_a_response_says_what_chat_says(client: openai.OpenAI) -> None:
    made = create(client, instructions="Be brief.", metadata={"a": "b"})
    talk: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}]
    chat = client.chat.completions.create(model="chat", messages=talk, temperature=0, max_tokens=24)
    assert made.output_text == chat.choices[0].message.content
    length = chat.choices[0].finish_reason == "length"
    assert made.status == ("incomplete" if length else "completed")
    assert (made.instructions, made.metadata) == ("Be brief.", {"a": "b"})
    assert made.usage.output_tokens == chat.usage.completion_tokens  # type: ignore[union-attr]
    assert client.responses.retrieve(made.id).output_text == made.output_text


def test_its_events_rise_and_end_with_the_whole(client: openai.OpenAI) -> None:
    whole = create(client)
    events = list(create(client, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    end = ["output_text.done", "content_part.done", "output_item.done", whole.status]
    assert kinds[-4:] == end and set(kinds[4:-4]) == {"output_text.delta"}
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted({*numbers})
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == (
        whole.output_text
    )
    assert events[-1].response.output_text == whole.output_text
    kept = until(
        lambda: client.responses.retrieve(events[0].response.id),
        lambda response: response.status == whole.status,
    )
    assert kept.output_text == whole.output_text


@pytest.mark.parametrize("received", [0, 1, 3, 5, 9, -3, -1])
def test_a_stream_goes_on_after_any_of_its_events(client: openai.OpenAI, received: int) -> None:
    events = list(create(client, stream=True))
    last = events[received]
    rest = client.responses.retrieve(
        events[0].response.id, stream=True, starting_after=last.sequence_number
    )
    wanted = [e.sequence_number for e in events if e.sequence_number > last.sequence_number]
    found = list(rest)
    assert "".join(getattr(e, "delta", "") for e in found) == "".join(
        getattr(e, "delta", "") for e in events if e.sequence_number > last.sequence_number
    )
    assert [e.sequence_number for e in found] == wanted
    if found:
        assert found[-1].response == events[-1].response


def test_a_conversation_goes_on_from_a_response(client: openai.OpenAI) -> None:
    first = create(client, input="My name is Ada.")
    second = create(client, input="What is my name?", previous_response_id=first.id)
    talk: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "What is my name?"},
    ]
    assert second.output_text == create(client, input=talk).output_text
    assert second.usage.input_tokens > first.usage.input_tokens
    items = [{"role": "user", "content": "My name is Ada."}, *first.output, talk[-1]]
    assert create(client, input=items).output_text == second.output_text
    with pytest.raises(openai.NotFoundError):
        create(client, previous_response_id="resp_unknown")


def test_in_the_background_it_is_come_for(client: openai.OpenAI) -> None:
    whole = create(client)
    made = create(client, background=True)
    assert made.status == "queued" and made.output == []
    done = until(
        lambda: client.responses.retrieve(made.id),
        lambda response: response.status not in ("queued", "in_progress"),
    )
    assert (done.status, done.output_text) == (whole.status, whole.output_text)
    assert client.responses.cancel(made.id).status == whole.status, "it has ended"
    with pytest.raises(openai.BadRequestError):
        create(client, background=True, store=False)


def test_it_outlives_the_api(platform: Platform, client: openai.OpenAI) -> None:
    extras = {"max_output_tokens": 150, "input": "Tell me a long story."}
    made = create(client, background=True, **extras)
    platform.process("api").kill()
    patient = platform.openai().with_options(max_retries=20)
    done = until(
        lambda: patient.responses.retrieve(made.id),
        lambda response: response.status not in ("queued", "in_progress"),
    )
    assert done.output_text == create(patient, **extras).output_text


def test_cancelled_and_deleted(client: openai.OpenAI) -> None:
    made = create(client, background=True, max_output_tokens=2000, input="Count to a thousand.")
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    begun = time.monotonic()
    unkept = create(client, store=False)
    assert unkept.output_text and time.monotonic() > begun
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


def test_json_by_schema_and_refusals_by_name(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    text = {"format": {"type": "json_schema", "name": "ok", "schema": schema, "strict": True}}
    assert json.loads(create(client, text=text).output_text)["ok"] in (True, False)
    for wrong in ({"tools": [{"type": "web_search"}]}, {"truncation": "auto"}, {"prompt": {}}):
        with pytest.raises(openai.BadRequestError) as refused:
            create(client, **wrong)
        assert refused.value.param == next(iter(wrong))
