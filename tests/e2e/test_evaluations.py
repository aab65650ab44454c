"""The same questions to a base model and adapters of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import Platform, until
from tests.e2e.test_limits_and_usage import Tenant

pytestmark = pytest.mark.e2e

PATH = "/api/v1/evaluations"
ROWS = [
    {"prompt": f"{asked}?", "completion": answer}
    for asked, answer in (("Where do you live", "Arrr"), ("Who are you", "{}"), ("What", "no"))
]


def add(platform: Platform, name: str, rows: list[Any]) -> None:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    sent = {"file": (f"{name}.jsonl", content)}
    made = platform.http().post("/api/v1/datasets", data={"name": name}, files=sent)
    assert made.status_code == 201, made.text


def test_variants_answer_side_by_side_and_are_scored(platform: Platform, tmp_path: Path) -> None:
    add(platform, "asked", ROWS)
    schema, table = tmp_path / "schema.json", tmp_path / "answers.jsonl"
    schema.write_text(json.dumps({"type": "object"}))
    http = platform.http()
    versions = {"versions": {"1": 1}}
    assert http.put("/api/v1/repos/json/aliases/eval", json=versions).status_code == 200
    told = platform.loraplex(
        *("evaluate", "asked", "--deployment", "chat", "--as-chat", "--max-tokens", "24"),
        *("--variant", "base", "--variant", "pirate/1", "--variant", "json@eval"),
        *("--schema", str(schema), "--output", str(table), "--json"),
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["variants"] == ["base", "pirate/1", "json/1"], "an alias is what it was then"
    assert (found["status"], found["answered"], found["rows"]) == ("succeeded", 9, 3)
    names = {"exact_match", "rouge1", "rouge2", "rougeL", "valid_json"}
    for scores in found["scores"].values():
        assert {*scores} == names | {"completion_tokens", "failed"} and scores["failed"] == 0
        assert all(0 <= scores[name] <= 1 for name in names)
    assert found["scores"]["json/1"]["valid_json"] > found["scores"]["base"]["valid_json"]
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2]
    assert lines[0]["messages"] == [{"role": "user", "content": "Where do you live?"}]
    assert lines[0]["expected"] == "Arrr" and "Arrr" in lines[0]["answers"]["pirate/1"]["text"]
    answer = lines[0]["answers"]["base"]
    assert {*answer["scores"]} == names and answer["completion_tokens"] > 0
    assert found["id"] in platform.loraplex("evaluations", "--json").stdout


def test_what_was_answered_before_it_was_cancelled_is_scored(platform: Platform) -> None:
    add(platform, "many", [{"prompt": "Count to a million.", "completion": "x"}] * 40)
    body = {"deployment": "chat", "dataset": "many", "variants": ["base"], "max_tokens": 200}
    http = platform.http()
    made = http.post(PATH, json=body).json()
    path = f"{PATH}/{made['id']}"
    until(lambda: http.get(path).json(), lambda e: e["answered"] > 0)
    assert http.post(f"{path}/cancel").status_code == 200
    end = until(lambda: http.get(path).json(), lambda e: e["status"] == "cancelled")
    failed = end["scores"]["base"]["failed"]
    assert 0 < failed < 40 and failed + end["answered"] == 40


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"variants": ["none/1"]}, "none/1"),
        ({"variants": []}, "variants"),
        ({"deployment": "nobody"}, "nobody"),
        ({"dataset": "nothing"}, "nothing"),
        ({"metrics": ["bleu"]}, "bleu"),
        ({"json_schema": {"$ref": "http://127.0.0.1/x"}}, "json_schema"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"rows": 0}, "rows"),
        ({"variants": ["base", "base"]}, "named already"),
        ({"deployment": "chat:pirate/1"}, "chat:pirate/1"),
        ({"dataset": "texts"}, "text"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_refused_at_once(
    platform: Platform, changes: dict[str, Any], named: str
) -> None:
    http = platform.http()
    if "dataset" in changes:
        http.post(
            "/api/v1/datasets",
            data={"name": "texts"},
            files={"file": ("t.jsonl", b'{"text": "a"}\n')},
        )
    else:
        content = b'{"prompt": "a", "completion": "b"}\n'
        http.post("/api/v1/datasets", data={"name": "one"}, files={"file": ("o.jsonl", content)})
    body = {"deployment": "chat", "dataset": "one", "variants": ["base"]} | changes
    answer = http.post(PATH, json=body)
    assert answer.status_code in (400, 404) and named in answer.text


def test_others_do_not_see_it(platform: Platform) -> None:
    add(platform, "mine", ROWS[:1])
    body = {"deployment": "chat", "dataset": "mine", "variants": ["base"], "max_tokens": 1}
    http = platform.http()
    mine = http.post(PATH, json=body).json()["id"]
    end = until(lambda: http.get(f"{PATH}/{mine}").json(), lambda e: e["status"] == "succeeded")
    other = Tenant(platform, "curious").http
    for path in (f"{PATH}/{mine}", "/api/v1/evaluations/eval-none"):
        assert other.get(path).status_code == 404
        assert other.post(f"{path}/cancel").status_code == 404
    assert other.get(PATH).json()["data"] == []
    assert other.get(f"/v1/files/{end['results_file_id']}/content").status_code == 404
    assert other.post(PATH, json=body).status_code == 404, "nor may it ask"
