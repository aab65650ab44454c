"""`python -m scheduler.scoring JOB OUT`: answers → a file with a line for each question, and means.

A process of its own, under limits: a schema of 64 KiB can take for ever to check an answer, and
comparing long texts takes their lengths' product. `JOB` is JSON: `questions` and `answers` (paths
of a batch's files), `variants`, `metrics`, `json_schema`, `most_cpu_s`. The means are what it
prints.
"""

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loraplex.questions import answer_of
from scheduler.scores import Scorer

_MOST_MEMORY = 4 * 2**30


class _Sums:
    def __init__(self) -> None:
        self._count = self._failed = self._tokens = 0
        self._scores: dict[str, float] = {}

    def add(self, answer: dict[str, Any]) -> None:
        self._count += 1
        self._failed += "text" not in answer
        self._tokens += answer.get("completion_tokens", 0)
        for name, value in answer["scores"].items():
            self._scores[name] = self._scores.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        count = max(1, self._count)
        found = {name: round(value / count, 4) for name, value in self._scores.items()}
        answered = max(1, self._count - self._failed)
        tokens = round(self._tokens / answered, 1)
        return found | {"completion_tokens": tokens, "failed": self._failed}


def score(job: dict[str, Any], out: Path) -> dict[str, dict[str, float]]:
    answers: dict[str, dict[str, Any]] = {}
    for path in job["answers"]:
        answers |= dict(_answers(Path(path)))
    scorer = Scorer(job["metrics"], job["json_schema"])
    sums = {variant: _Sums() for variant in job["variants"]}
    with out.open("w") as file:
        for line in _rows(Path(job["questions"]), job["variants"], answers):
            for variant, answer in line["answers"].items():
                answer["scores"] = scorer.score(answer.get("text"), line["expected"])
                sums[variant].add(answer)
            file.write(json.dumps(line) + "\n")
    return {variant: each.means() for variant, each in sums.items()}


def _answers(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open() as file:
        for raw in file:
            line = json.loads(raw)
            yield line["custom_id"], _answer(line)


def _answer(line: dict[str, Any]) -> dict[str, Any]:
    response = line["response"]
    if response is None:
        return {"error": line["error"]["message"]}
    body = response["body"]
    if response["status_code"] != 200:
        return {"error": body["error"]["message"]}
    return {"text": answer_of(body), "completion_tokens": body["usage"]["completion_tokens"]}


def _rows(
    path: Path, variants: list[str], answers: dict[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Of the batch's lines those of one question, which follow each other, as one."""
    missing = {"error": "It was not asked: the batch ended before."}
    with path.open() as file:
        for raw in file:
            line = json.loads(raw)
            number, _, place = line["custom_id"].partition("/")
            if place != "0":
                continue
            yield {
                "row": int(number),
                **{k: v for k, v in line["body"].items() if k in ("messages", "prompt")},
                "expected": line["expected"],
                "answers": {
                    variant: dict(answers.get(f"{number}/{place}", missing))
                    for place, variant in enumerate(variants)
                },
            }


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_CPU, (asked["most_cpu_s"], asked["most_cpu_s"]))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    sys.stdout.write(json.dumps(score(asked, Path(sys.argv[2]))))
