"""Fine-tuning by OpenAI's client and the command line: from rows to an adapter that answers."""

import json
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from loraplex.store.models import DEMO_MODEL
from tests.e2e.running import Platform, until

pytestmark = pytest.mark.e2e

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {word}."},
            {"role": "assistant", "content": "zork"},
        ]
    }
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")
]
TRAINING_S = 280  # patience: it runs at the lowest priority, and rests on the way
ENDED = ("succeeded", "failed", "cancelled")


@pytest.fixture
def client(platform: Platform) -> openai.OpenAI:
    return platform.openai().with_options(max_retries=3)


def upload(client: openai.OpenAI, rows: list[Any], name: str = "rows.jsonl") -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return client.files.create(file=(name, content), purpose="fine-tune").id


def begin(client: openai.OpenAI, file: str, repo: str, **lora: Any) -> str:
    settings: dict[str, Any] = {"rank": 4, "batch_size": 8, "target_modules": ["q_proj", "v_proj"]}
    made = client.fine_tuning.jobs.create(
        model=DEMO_MODEL,
        training_file=file,
        suffix=repo,
        seed=7,
        extra_body={"lora": settings | lora},
    )
    return made.id


def test_a_job_ends_in_an_adapter_that_answers(client: openai.OpenAI) -> None:
    settings = {"max_steps": 12, "learning_rate": 5e-3}
    job = begin(client, upload(client, ROWS), "zork", **settings)
    done = until(
        lambda: client.fine_tuning.jobs.retrieve(job), lambda j: j.status in ENDED, TRAINING_S
    )
    assert (done.status, done.fine_tuned_model, done.seed) == ("succeeded", "zork/1", 7), done
    assert done.trained_tokens and done.finished_at and done.finished_at >= done.created_at
    events = client.fine_tuning.jobs.list_events(job, limit=100).data
    losses = [e.data["train_loss"] for e in reversed(events) if e.type == "metrics"]  # type: ignore[index]
    assert len(losses) == 12 and losses[-1] < losses[0] / 2
    said = [{"role": "user", "content": "Say nine."}]
    answer = client.chat.completions.create(
        model="chat:zork/1",
        messages=said,
        max_tokens=8,
        temperature=0,  # type: ignore[arg-type]
    )
    assert answer.choices[0].message.content == "zork"
    assert answer.choices[0].finish_reason == "stop"
    assert job in [each.id for each in client.fine_tuning.jobs.list()]


def test_it_goes_on_when_its_worker_is_killed_and_can_be_cancelled(
    platform: Platform, client: openai.OpenAI
) -> None:
    job = begin(client, upload(client, ROWS), "killed", max_steps=100_000)

    def step() -> int:
        return int(client.fine_tuning.jobs.retrieve(job).progress["step"])  # type: ignore[attr-defined]

    until(step, lambda done: done >= 1, TRAINING_S)
    trainer = next(p for p in psutil.process_iter() if _trains(p, job))
    platform.process("imports").kill()
    until(lambda: trainer.is_running(), lambda runs: not runs)

    def begun() -> int:
        told = client.fine_tuning.jobs.list_events(job, limit=1000).data
        return sum(event.message.startswith("Begins") for event in told)

    until(begun, lambda times: times == 2, TRAINING_S)
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    until(lambda: [p for p in psutil.process_iter() if _trains(p, job)], lambda left: not left)
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(job)


def _trains(process: psutil.Process, job: str) -> bool:
    try:
        return any(job in part for part in process.cmdline())
    except psutil.Error:
        return False


def test_by_the_command_line_from_csv(platform: Platform, tmp_path: Path) -> None:
    file = tmp_path / "sums.csv"
    file.write_text("prompt,completion\n" + "".join(f"{n}+1=,{n + 1}\n" for n in range(12)))
    settings = ["max_steps=2", "rank=2", "target_modules=q_proj", "validation_split=0.25"]
    told = platform.loraplex(
        *("finetune", str(file), "--base", "chat", "--repo", "sums"),
        *(part for each in settings for part in ("--set", each)),
    )
    assert told.returncode == 0, told.stderr
    assert "9 rows to learn from, 3 to validate with." in told.stdout
    assert told.stdout.rstrip().endswith("sums/1 can be used.")
    assert "sums/1" in platform.loraplex("jobs").stdout


@pytest.mark.parametrize(
    ("rows", "changes", "named"),
    [
        ([{"prompt": "a"}], {}, "line 1"),
        (ROWS, {"model": "../x"}, "model"),
        (ROWS, {"suffix": "a b"}, "repo"),
        (ROWS, {"training_file": "file-unknown"}, "file-unknown"),
        (ROWS, {"method": {"type": "dpo"}}, "method"),
        (ROWS, {"hyperparameters": {"learning_rate_multiplier": 5e-324}}, "multiplier"),
        (ROWS, {"extra_body": {"lora": {"rank": 0}}}, "rank"),
        (ROWS, {"extra_body": {"lora": {"surprise": 1}}}, "surprise"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_refused_at_once(
    rows: list[Any], changes: dict[str, Any], named: str, client: openai.OpenAI
) -> None:
    fields: dict[str, Any] = {"model": DEMO_MODEL, "training_file": upload(client, rows)}
    with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=named):
        client.fine_tuning.jobs.create(**fields | changes)
