"""From data to a promoted adapter: the examples, and what a job tells while it runs."""

import sys
from pathlib import Path

import openai
import pytest

from benchmarks.environments import python_with, run
from tests.conftest import REPOSITORY
from tests.e2e.running import Platform, until
from tests.e2e.test_finetune import ROWS, begin, upload

pytestmark = pytest.mark.e2e


def environment(platform: Platform, **more: str) -> dict[str, str]:
    key = platform.http().headers["authorization"].removeprefix("Bearer ")
    url = platform.url
    return {"LORAPLEX_URL": url, "LORAPLEX_API_KEY": key, "DEPLOYMENT": "chat"} | more


def state_while_used(platform: Platform, adapter: str) -> str:
    """Its replica tells within a second, and ends when it is idle."""
    platform.openai().completions.create(model=f"chat:{adapter}", prompt="a", max_tokens=1)
    return str(platform.http().get(f"/api/v1/adapters/{adapter}").json()["state"])


def test_the_example_with_openais_sdk(platform: Platform) -> None:
    example = REPOSITORY / "examples" / "finetune_to_serve.py"
    printed = run(Path(sys.executable), example, environment(platform, EPOCHS="2"))
    assert "Step 8 of 8: loss" in printed and "succeeded tickets/1" in printed
    assert "kept: tickets/1 8" in printed and "kept: tickets/1@4 4" in printed
    assert "chat:tickets/1: " in printed and "tickets@prod is {'1': 1}" in printed
    assert "tickets@prod: " in printed
    http = platform.http()
    made = http.get("/api/v1/adapters/tickets/1").json()
    assert made["lineage"]["steps"] == 8 and made["lineage"]["dataset"].startswith("file-")
    until(lambda: state_while_used(platform, "tickets/1"), lambda state: state == "resident")
    kept = http.get("/api/v1/adapters/tickets/1@4").json()
    assert (kept["ref"], kept["checkpoint"]) == ("tickets/1@4", 4)
    answer = platform.openai().completions.create(model="tickets/1@4", prompt="a", max_tokens=1)
    assert answer.usage is not None and answer.usage.completion_tokens == 1
    listed = [each["ref"] for each in http.get("/api/v1/adapters").json()["data"]]
    assert "tickets/1" in listed and "tickets/1@4" not in listed
    assert platform.loraplex("adapters", "tag", "tickets/1", "desk=all", "x=").returncode == 0
    assert "tickets/1" in platform.loraplex("adapters", "--tag", "desk=all").stdout
    assert "tickets/1" not in platform.loraplex("adapters", "--tag", "desk=none").stdout
    assert http.delete("/api/v1/repos/tickets/aliases/prod").status_code == 204
    assert http.delete("/api/v1/adapters/tickets/1").status_code == 204
    assert http.get("/api/v1/adapters/tickets/1@4").status_code == 404, "gone with its version"


def test_the_example_with_predibases_sdk(platform: Platform) -> None:
    example = REPOSITORY / "examples" / "finetune_to_serve_predibase.py"
    sdk = python_with("predibase==2025.10.3")
    printed = run(sdk, example, environment(platform, EPOCHS="1"))
    assert "made: tickets-pb/1" in printed and "tickets-pb/1 says: " in printed
    assert "tickets-pb@prod says: " in printed


def test_what_a_job_tells_is_streamed_and_goes_on_where_one_was(platform: Platform) -> None:
    client = platform.openai()
    job = begin(client, upload(client, ROWS), "streamed", max_steps=3, rank=1)
    path = f"/v1/fine_tuning/jobs/{job}/events"
    http = platform.http()

    def told(headers: dict[str, str]) -> list[str]:
        with http.stream("GET", path, params={"stream": "true"}, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return [line for line in answer.iter_lines() if line.startswith(("id:", "data:"))]

    lines = told({})
    assert lines[-1] == "data: [DONE]" and sum('"train_loss"' in line for line in lines) == 3
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id:")]
    assert told({"last-event-id": ids[2]}) == lines[6:]
    assert client.fine_tuning.jobs.retrieve(job).status == "succeeded"
    refused = http.get(path, params={"stream": "true", "after": "x"})
    assert refused.status_code == 400
    assert http.get("/v1/fine_tuning/jobs/no/events?stream=true").status_code == 404


def test_a_training_goes_on_from_an_adapter(platform: Platform) -> None:
    client = platform.openai()
    file = upload(client, ROWS)
    with pytest.raises(openai.BadRequestError, match="rank"):
        client.fine_tuning.jobs.create(
            model="pirate/1", training_file=file, extra_body={"lora": {"rank": 4}}
        )
    made = client.fine_tuning.jobs.create(
        model="chat:pirate/1",
        training_file=file,
        suffix="further",
        extra_body={"lora": {"max_steps": 1, "packing": True}},
    )
    assert made.trained_from == "pirate/1"  # type: ignore[attr-defined]
    done = platform.loraplex("jobs", "follow", made.id)
    assert done.returncode == 0 and "further/1 can be used." in done.stdout
    assert platform.http().get("/api/v1/adapters/further/1").json()["lineage"]["parent"] == (
        "pirate/1"
    )
