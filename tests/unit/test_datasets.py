"""Training data: what is taken, and that mistakes are told with their lines."""

import json
from pathlib import Path

import pytest

from loraplex.datasets import MAX_ROW, DatasetInvalid, inspect

PAIR = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def lines(*rows: object) -> str:
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("name", "content", "columns", "rows"),
    [
        ("a.jsonl", lines(PAIR, PAIR), ("prompt", "completion"), 2),
        ("a.jsonl", "\ufeff" + lines(PAIR) + "\n\n", ("prompt", "completion"), 1),
        ("a.jsonl", lines(PAIR | {"split": "train"}), ("prompt", "completion"), 1),
        ("a.jsonl", lines(CHAT), ("messages",), 1),
        ("a.jsonl", lines({"text": "a"}), ("text",), 1),
        ("a.CSV", 'prompt,completion\n"a,\n""x",b\n,d\n', ("prompt", "completion"), 2),
    ],
)
def test_what_is_taken(
    name: str, content: str, columns: tuple[str, ...], rows: int, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text(content, encoding="utf-8")
    facts = inspect(tmp_path / "data", name)
    assert (facts.columns, facts.rows) == (columns, rows)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", lines(PAIR) + "\n{", "line 2: no JSON"),
        ("a.jsonl", lines(PAIR, [1]), "line 2: no JSON object"),
        ("a.jsonl", lines(PAIR, CHAT), "line 2: its columns are messages"),
        ("a.jsonl", lines({"prompt": "a"}), "line 1: it needs prompt and completion"),
        ("a.jsonl", lines(PAIR, PAIR | {"completion": ""}), "line 2: completion must be"),
        ("a.jsonl", lines(PAIR | {"prompt": None}), "line 1: prompt must be"),
        ("a.jsonl", lines({"messages": []}), "line 1: messages must be a list"),
        ("a.jsonl", lines({"messages": [{"role": "x"}]}), "each message needs a role"),
        ("a.jsonl", lines({"messages": [{"role": "user"}]}), "needs a content"),
        ("a.jsonl", lines({"messages": CHAT["messages"][:1]}), "isn't the assistant's"),
        ("a.jsonl", "x" * (MAX_ROW + 1), "line 1: over"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("a.csv", "prompt,completion\na,b,c\n", "line 2: 3 fields, the header has 2"),
        ("a.csv", "prompt,completion\na\n", "line 2: 1 fields, the header has 2"),
        ("a.csv", ",".join("ab" * 40) + "\n", "line 1: over 64 columns"),
        ("a.csv", "prompt,completion\n" + "a," * MAX_ROW, "no CSV: a row of over"),
        ("a.csv", "prompt,completion\n" + '"\n",' * MAX_ROW, "no CSV: a row of over"),
        ("a.jsonl", '{"\\ud800": 1}', "it has: .ud800"),
        ("a.csv", "question,answer\na,b\n", "it has: answer, question"),
        ("a.csv", "prompt,completion,prompt\na,b,c\n", "two columns have the same name"),
        ("a.csv", "messages\n[]\n", "messages are for JSON lines"),
        ("a.tsv", "prompt\tcompletion\n", "JSON lines"),
        ("a.jsonl", '{"text": NaN}', "NaN is no number"),
        ("a.jsonl", '{"text": "\\ud800"}', "in UTF-8"),
        ("a.csv", 'prompt,completion\n"a"x,b\n', "no CSV"),
        ("a.csv", "prompt,completion\n" + "a" * (MAX_ROW + 1) + ",b\n", "no CSV"),
    ],
)
def test_mistakes_are_told_with_their_lines(
    name: str, content: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "data").write_text(content)
    with pytest.raises(DatasetInvalid, match=told):
        inspect(tmp_path / "data", name)


def test_what_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(DatasetInvalid, match="line 1: text must be a text, in UTF-8"):
        inspect(tmp_path / "data", "a.jsonl")
