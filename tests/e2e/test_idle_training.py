"""A fleet of one place: fine-tuning has it while nobody asks, and gives it back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loraplex.store.models import ModelStore
from tests.e2e.running import Platform, make_platform, until
from tests.e2e.test_finetune import ROWS, TRAINING_S, begin, upload

pytestmark = pytest.mark.e2e


@pytest.fixture
def small(tmp_path: Path, model_store: ModelStore, smollm2: Path) -> Iterator[Platform]:
    running = make_platform(tmp_path / "state", model_store, LORAPLEX_FLEET='{"local": 1}')
    up = running.loraplex("up", "--detach", "--no-demo")
    assert up.returncode == 0, up.stderr + up.stdout
    running.deploy("chat", cooldown_time=1)
    yield running
    assert running.loraplex("down").returncode == 0


def test_it_gives_way_to_a_request_and_goes_on_where_it_was(small: Platform) -> None:
    client = small.openai().with_options(max_retries=10)
    until(lambda: small.deployment("chat")["status"], lambda status: status == "standby")
    job = begin(client, upload(client, ROWS), "idle", max_steps=100_000, checkpoints=0)

    def told(beginning: str) -> int:
        events = client.fine_tuning.jobs.list_events(job, limit=1000).data
        return sum(event.message.startswith(beginning) for event in events)

    until(lambda: told("Step"), lambda steps: steps >= 2, TRAINING_S)
    answer = client.completions.create(model="chat", prompt="Hello", max_tokens=4)
    assert answer.usage is not None and answer.usage.completion_tokens > 0
    assert told("It gave its place away") == 1
    seen = client.fine_tuning.jobs.retrieve(job).progress["step"]  # type: ignore[attr-defined]
    until(lambda: told("Begins"), lambda begun: begun == 2, TRAINING_S)
    until(
        lambda: client.fine_tuning.jobs.retrieve(job).progress["step"],  # type: ignore[attr-defined]
        lambda step: step > seen,
        TRAINING_S,
    )
    events = client.fine_tuning.jobs.list_events(job, limit=1000).data
    steps = [e.data["step"] for e in reversed(events) if e.type == "metrics"]  # type: ignore[index]
    assert steps == list(range(1, len(steps) + 1)), "none lost, none twice"
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
