"""How answers are scored, and rows become questions."""

import pytest

from loraplex.json_schema import allows, validator
from loraplex.questions import CHAT, COMPLETION, Question, answer_of, question
from scheduler.scores import Scorer

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_each_metric_says_how_near_an_answer_is() -> None:
    scorer = Scorer(["exact_match", "rouge"], SCHEMA)
    assert scorer.names == ["exact_match", "rouge1", "rouge2", "rougeL", "valid_json"]
    found = scorer.score(' {"n": 1}\n', '{"n": 1}')
    assert found == dict.fromkeys(scorer.names, 1.0)
    near = scorer.score("the cat sat", "the cat lay on a mat")
    assert near["exact_match"] == near["valid_json"] == 0
    assert near["rouge1"] == near["rougeL"] == pytest.approx(4 / 9)
    assert scorer.score(None, "x") == dict.fromkeys(scorer.names, 0.0)
    assert Scorer(["exact_match"], None).score("a", "a") == {"exact_match": 1.0}


def test_long_texts_are_cut_before_they_are_compared() -> None:
    long = " ".join(f"w{n}" for n in range(20_000))
    assert Scorer(["rouge"], None).score(long, long)["rougeL"] == 1.0


def test_schemas_of_users_fetch_nothing_and_take_no_time() -> None:
    assert allows(validator(SCHEMA), '{"n": 1}')
    for text in ('{"n": "1"}', "[]", "no JSON", "[" * 100_000):
        assert not allows(validator(SCHEMA), text)
    slow = validator({"type": "string", "pattern": "^(a+)+$"})
    assert not allows(slow, f'"{"a" * 100_000}b"')
    refused = (
        {"$ref": "http://127.0.0.1:9/x"},
        {"$ref": "file:///etc/passwd"},
        {"type": "nonsense"},
        {"type": "string", "pattern": "(?=a)"},
    )
    for schema in refused:
        with pytest.raises(ValueError):
            validator(schema)


def test_rows_are_questions() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert question({"messages": said}, as_chat=False) == Question(
        CHAT, {"messages": said[:1]}, "b"
    )
    row = {"prompt": "a", "completion": "b"}
    assert question(row, as_chat=False) == Question(COMPLETION, {"prompt": "a"}, "b")
    assert question(row, as_chat=True) == Question(CHAT, {"messages": said[:1]}, "b")
    assert question({"text": "a"}, as_chat=True) is None
    assert answer_of({"choices": [{"message": {"content": None}}]}) == ""
    assert answer_of({"choices": [{"text": "b"}]}) == "b"
