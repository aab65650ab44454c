"""Calls of tools: grammars allow what was asked for, and what comes is read however it comes."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from api.requests.tool_calls import ToolCallParser
from api.requests.tool_families import FAMILIES, ToolUse, family_of, grammar

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TIME: dict[str, Any] = {"name": "get_time"}
PARIS = '{"name": "get_weather", "arguments": {"city": "Par\\"is {", "days": 2}}'
NOW = '{"name": "get_time", "arguments": {}}'
CALLS = [("get_weather", '{"city": "Par\\"is {", "days": 2}'), ("get_time", "{}")]
LLAMA = [text.replace('"arguments"', '"parameters"') for text in (PARIS, NOW)]

ANSWERS = {
    "hermes": f"Let me see.\n<tool_call>\n{PARIS}\n</tool_call>\n<tool_call>\n{NOW}\n</tool_call>",
    "mistral": f"[TOOL_CALLS][{PARIS}, {NOW}]",
    "llama3": "; ".join(LLAMA),
}


def read(family: str, *texts: str) -> tuple[str, list[tuple[str, str]]]:
    parser = ToolCallParser(FAMILIES[family])
    said, calls = "", []
    for text in (*texts, None):
        parsed = parser.flush() if text is None else parser.feed(text)
        said += parsed.text
        for part in parsed.calls:
            if part.name is not None:
                assert part.index == len(calls)
                calls.append((part.name, part.arguments))
            else:
                calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
    return said, calls


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 200), max_size=12))
def test_calls_are_read_however_the_text_is_cut(family: str, cuts: list[int]) -> None:
    text = ANSWERS[family]
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    said, calls = read(family, *(text[a:b] for a, b in pairwise(at)))
    assert calls == CALLS
    assert said.strip() == ("Let me see." if family == "hermes" else "")


@given(st.sampled_from(sorted(ANSWERS)), st.text('<>tool_cal/[TOLCAS]{} \n"', max_size=40))
def test_a_text_without_calls_stays_as_it_is(family: str, text: str) -> None:
    family_mark = FAMILIES[family].mark or "{"
    if family_mark not in text:
        said, calls = read(family, *text)
        assert calls == []
        assert said.strip() == text.strip()


@pytest.mark.parametrize("family", sorted(ANSWERS))
def test_what_is_no_call_is_text(family: str) -> None:
    said, calls = read(family, FAMILIES[family].mark + '{"no": "call"} [')
    assert calls == [] and '{"no": "call"}' in said


def test_arguments_stream_as_they_come() -> None:
    parser = ToolCallParser(FAMILIES["hermes"])
    parser.feed('<tool_call>\n{"name": "f", "argum')
    first = parser.feed('ents": {"a')
    assert [(p.name, p.arguments) for p in first.calls] == [("f", '{"a')]
    more = parser.feed('": [1, {"b": "}"}')
    assert [(p.name, p.arguments) for p in more.calls] == [(None, '": [1, {"b": "}"}')]
    last = parser.feed("]}}\n</tool_call>")
    assert [(p.name, p.arguments) for p in last.calls] == [(None, "]}")]


def test_text_after_a_call_keeps_its_spaces() -> None:
    text = "<tool_call>" + NOW + "</tool_call>\nI have called it.\n\nNow wait."
    said, calls = read("hermes", *text)
    assert (said, len(calls)) == ("I have called it.\n\nNow wait.", 1)


@pytest.mark.parametrize(
    "text",
    ['{"arguments": {"a": 1}, "name": "f"}', '{"name": "f", "arguments": "{\\"a\\": 1}"}'],
)
def test_other_orders_and_arguments_as_text(text: str) -> None:
    _, ((name, arguments),) = read("hermes", f"<tool_call>{text}</tool_call>")
    assert (name, json.loads(arguments)) == ("f", {"a": 1})


def test_an_answer_that_ends_within_a_call_shows_what_there_is() -> None:
    said, calls = read("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": "b')
    assert (said, calls) == ("", [("f", '{"a": "b')])
    said, calls = read("hermes", 'Well <tool_call>\n{"name": "f"')
    assert (said, calls) == ('Well{"name": "f"', [])
    assert read("hermes", "Well <tool_") == ("Well <tool_", [])


TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{% endif %}",
    "mistral": "{% if tools %}[TOOL_CALLS]{% endif %}",
    "llama3": '{% if tools %}<|start_header_id|>"parameters"{% endif %}',
}


def test_families_are_told_by_their_templates() -> None:
    for name, template in TEMPLATES.items():
        assert family_of(template) is FAMILIES[name]
    assert family_of("<tool_call>") is None, "the template has no use for tools"
    assert family_of("{% if tools %}<|other|>{% endif %}") is None


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2 / "tokenizer.json"))


@pytest.mark.parametrize("family", sorted(ANSWERS))
@pytest.mark.parametrize(
    "use",
    [
        ToolUse([WEATHER, TIME]),
        ToolUse([WEATHER, TIME], required=True),
        ToolUse([WEATHER, TIME], only="get_weather"),
        ToolUse([WEATHER], required=True, parallel=False),
        ToolUse([TIME], parallel=False),
    ],
)
def test_grammars_allow_what_was_asked_for(
    family: str, use: ToolUse, tokenizer: Tokenizer, smollm2: Path
) -> None:
    from llguidance import LLMatcher, LLTokenizer

    source = LLMatcher.grammar_from_lark(grammar(FAMILIES[family], use, tokenizer))
    llt = LLTokenizer((smollm2 / "tokenizer.json").read_text())

    def allows(text: str) -> bool:
        matcher = LLMatcher(llt, source, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        ids = llt.tokenize_str(text)
        return matcher.try_consume_tokens(ids) == len(ids) and bool(matcher.is_accepting())

    text = ANSWERS[family].removeprefix("Let me see.\n")
    parallel = use.parallel and FAMILIES[family].parallel
    both = parallel and use.only is None and len(use.functions) == 2
    assert allows(text) == both
    names = [f["name"] for f in use.functions if use.only in (None, f["name"])]
    assert allows(_one(family, PARIS)) == ("get_weather" in names)
    assert allows(_one(family, NOW)) == ("get_time" in names)
    assert not allows(_one(family, PARIS.replace("2", '"two"')))
    assert allows("Nothing to call.") == (not (use.required or use.only))


def _one(family: str, call: str) -> str:
    if family == "llama3":
        return call.replace('"arguments"', '"parameters"')
    return f"[TOOL_CALLS][{call}]" if family == "mistral" else f"<tool_call>\n{call}\n</tool_call>"
