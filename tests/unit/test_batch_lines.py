"""A batch's file: what is wrong in it is told by line, and what was done is read again."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.batches.lines import MOST_LINES, body_of, check
from api.batches.results import Results

URL = "/v1/chat/completions"


def line(**changes: Any) -> bytes:
    facts = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "m"}}
    return json.dumps(facts | changes).encode() + b"\n"


def test_what_is_wrong_is_told_by_line() -> None:
    raw = [
        line(),
        b"\n",
        line(),
        b"{no json\n",
        b"[]\n",
        line(custom_id="b", method="GET"),
        line(custom_id="c", url="/v1/completions"),
        line(custom_id="d", body="text"),
        line(custom_id=""),
        line(custom_id="e", body={"stream": True}),
        b"[" * 100_000 + b"\n",
    ]
    file = BytesIO(b"".join(raw))
    lines, errors = check(file, URL)
    assert body_of(file, lines[0]) == {"model": "m"}
    assert [each.custom_id for each in lines] == ["a"]
    assert [(each.line, each.code, each.param) for each in errors] == [
        (3, "duplicate_custom_id", "custom_id"),
        (4, "invalid_json_line", None),
        (5, "invalid_json_line", None),
        (6, "invalid_value", "method"),
        (7, "invalid_value", "url"),
        (8, "invalid_value", "body"),
        (9, "invalid_value", "custom_id"),
        (10, "invalid_value", "body.stream"),
        (11, "invalid_json_line", None),
    ]
    assert check(BytesIO(), URL)[1][0].code == "empty_file"
    many = b"".join(line(custom_id=str(number)) for number in range(MOST_LINES + 5))
    assert [each.code for each in check(BytesIO(many), URL)[1]] == ["too_many"]
    long = line() + line(custom_id="b", body={"x": "y" * 2**20}) + line(custom_id="c")
    assert [each.code for each in check(BytesIO(long), URL)[1]] == ["line_too_long"]


@given(st.binary(max_size=600))
def test_no_bytes_break_it(raw: bytes) -> None:
    lines, errors = check(BytesIO(raw), URL)
    assert lines or errors


def result(name: str) -> dict[str, Any]:
    return {"id": f"batch_req-{name}", "custom_id": name, "response": {}, "error": None}


def test_results_go_on_after_a_torn_line(tmp_path: Path) -> None:
    first = Results(tmp_path / "batch")
    first.add(result("a"), succeeded=True)
    first.add(result("b"), succeeded=False)
    with (tmp_path / "batch" / "output.jsonl").open("ab") as file:
        file.write(json.dumps(result("c")).encode()[:20])  # a process died here
    again = Results(tmp_path / "batch")
    assert again.done == {"a": True, "b": False}
    again.add(result("c"), succeeded=True)
    again.add(result("a"), succeeded=False)  # known already
    # A frozen process that wakes up writes once more.
    (tmp_path / "batch" / "errors.jsonl").open("ab").write(json.dumps(result("c")).encode() + b"\n")
    late = Results(tmp_path / "batch")
    names = {
        succeeded: [json.loads(block)["custom_id"] for block in late.blocks(succeeded)]
        for succeeded in (True, False)
    }
    assert names == {True: ["a", "c"], False: ["b"]}
    assert late.counts == {True: 2, False: 1}
    late.remove()
    assert not (tmp_path / "batch").exists()
