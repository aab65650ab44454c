"""Tools and structured outputs through OpenAI's client, on a model whose template has tools."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.running import Platform

pytestmark = pytest.mark.e2e

TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call these functions:
{% for tool in tools %}{{ tool.function | tojson }}
{% endfor %}Write <tool_call>{"name": …, "arguments": …}</tool_call> to call one.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time"}}
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(
    platform: Platform, smollm2: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("with-tools")
    for file in smollm2.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    platform.deploy("tools", base_model=platform.base_model(folder))
    yield platform.openai().with_options(max_retries=5)  # it is checked first
    assert platform.http().delete("/api/v1/deployments/tools").status_code == 200


def ask(client: openai.OpenAI, **options: Any) -> Any:
    settings: Any = {"model": "tools", "messages": ASK, "temperature": 0, "max_tokens": 96}
    return client.chat.completions.create(**settings | {"tools": [WEATHER, TIME]} | options)


def test_a_call_that_is_required_matches_a_schema(client: openai.OpenAI) -> None:
    (choice,) = ask(client, tool_choice="required", parallel_tool_calls=False).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_")
    assert call.function.name in ("get_weather", "get_time")
    json.loads(call.function.arguments)


def test_a_function_that_is_named_is_called(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    (choice,) = ask(client, tool_choice=named).choices
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "get_weather"
    assert arguments["unit"] in ("celsius", "fahrenheit") and len(arguments["city"]) <= 12


def test_a_stream_has_the_same_call_in_parts(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    (whole,) = ask(client, tool_choice=named).choices
    (expected,) = whole.message.tool_calls
    ids, names, arguments, finish = [], [], "", None
    for chunk in ask(client, tool_choice=named, stream=True):
        (choice,) = chunk.choices
        finish = choice.finish_reason or finish
        assert not choice.delta.content
        for part in choice.delta.tool_calls or ():
            assert part.index == 0
            ids += [part.id] if part.id else []
            names += [part.function.name] if part.function.name else []
            arguments += part.function.arguments or ""
    assert (len(ids), names, finish) == (1, ["get_weather"], "tool_calls")
    assert arguments == expected.function.arguments


def test_whether_to_call_is_left_to_the_model(client: openai.OpenAI) -> None:
    (choice,) = ask(client, tool_choice="auto").choices
    for call in choice.message.tool_calls or ():
        json.loads(call.function.arguments)
    (silent,) = ask(client, tool_choice="none").choices
    assert silent.message.tool_calls is None and silent.message.content


def test_a_result_is_told_to_the_model(client: openai.OpenAI) -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'}
    talk = [
        *ASK,
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "31 degrees, sunny"},
    ]
    with_result = ask(client, messages=talk, tool_choice="none")
    assert with_result.choices[0].message.content
    assert with_result.usage.prompt_tokens > ask(client, tool_choice="none").usage.prompt_tokens


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [TIME, TIME]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools"),
    ({"tools": [{"type": "web_search"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "assistant"}]}, "messages"),
]


@pytest.mark.parametrize(("options", "param"), WRONG)
def test_what_cannot_be_is_refused_by_name(
    client: openai.OpenAI, options: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **options)
    assert str(refused.value.param).startswith(param)


def test_a_model_whose_template_has_no_tools_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no tools") as refused:
        ask(client, model="chat")
    assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")


def test_structured_outputs_as_vllm_has_them(client: openai.OpenAI) -> None:
    def text(**extra: Any) -> str:
        answer = client.chat.completions.create(
            model="chat", messages=ASK, max_tokens=24, temperature=0, extra_body=extra
        )
        return answer.choices[0].message.content or ""

    assert text(structured_outputs={"choice": ["sun", "rain"]}) in ("sun", "rain")
    assert text(guided_choice=["sun", "rain"]) in ("sun", "rain")
    assert re.fullmatch(r"\d{2} degrees", text(structured_outputs={"regex": r"\d{2} degrees"}))
    grammar = 'start: "It is " ("hot" | "cold") "."'
    assert text(guided_grammar=grammar) in ("It is hot.", "It is cold.")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema |= {"additionalProperties": False}
    assert json.loads(text(structured_outputs={"json": schema}))["a"] in (True, False)
    completed = client.completions.create(
        model="chat", prompt="2 + 2 =", max_tokens=4, extra_body={"guided_regex": r" [0-9]"}
    )
    assert re.fullmatch(r" [0-9]", completed.choices[0].text)
    with pytest.raises(openai.BadRequestError, match="One of"):
        text(guided_regex="a", guided_choice=["a"])
    with pytest.raises(openai.BadRequestError):
        text(structured_outputs={"regex": "("})


def test_arguments_for_the_template(client: openai.OpenAI) -> None:
    """As Qwen's `enable_thinking`; names of the platform's own can't be given."""

    def tokens(**extra: Any) -> int:
        answer = client.chat.completions.create(
            model="tools", messages=ASK, max_tokens=1, extra_body=extra
        )
        assert answer.usage is not None
        return answer.usage.prompt_tokens

    plain = tokens()
    own = [{"function": {"name": "f"}}]
    assert tokens(chat_template_kwargs={"tools": own}) > plain
    assert tokens(chat_template_kwargs={"messages": [], "__until": 0}) == plain
