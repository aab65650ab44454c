"""Fine-tuning jobs: the real program, on a tiny model, through deaths and changes of mind."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, col, select

from loraplex.apikeys import FIRST_TENANT
from loraplex.entities import (
    Adapter,
    StoredFile,
    TrainingEvent,
    TrainingJob,
    WorkState,
)
from loraplex.entities.columns import new_id
from loraplex.registry import next_version
from loraplex.settings import ScalerSettings
from loraplex.store.files import FileStore
from scheduler.claim import Claim
from scheduler.training_run import MOST_ATTEMPTS, TrainingRun

ROWS = [{"prompt": f"{n} plus one is ", "completion": str(n + 1)} for n in range(24)]
SETTINGS = {"rank": 4, "alpha": 8, "epochs": 2, "batch_size": 4, "learning_rate": 2e-2}
SETTINGS |= {"target_modules": ["q_proj", "v_proj"], "checkpoint_s": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> str:
    return str(tiny_model)


def store(database: Engine, settings: ScalerSettings, rows: list[dict[str, Any]]) -> str:
    file = StoredFile(tenant_id=FIRST_TENANT, filename="a.jsonl", purpose="fine-tune", bytes=0)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file.bytes = FileStore(settings.files_dir).put(file.id, [content])
    with Session(database, expire_on_commit=False) as session:
        session.add(file)
        session.commit()
    return file.id


@pytest.fixture
def make(database: Engine, settings: ScalerSettings, tiny: str) -> Callable[..., str]:
    def make(**changes: Any) -> str:
        file = store(database, settings, ROWS)
        fields: dict[str, Any] = {
            "tenant_id": FIRST_TENANT,
            "base_model": tiny,
            "repo": "sums",
            "training_file": file,
            "settings": SETTINGS,
            "host": "local",
        }
        with Session(database) as session:
            fields |= changes
            version = next_version(session, FIRST_TENANT, fields["repo"])
            job = TrainingJob(**{"version": version} | fields)
            session.add(job)
            session.commit()
            return job.id

    return make


def read(database: Engine, job: str) -> TrainingJob:
    with Session(database, expire_on_commit=False) as session:
        return session.get_one(TrainingJob, job)


def change(database: Engine, job: str, **values: Any) -> None:
    with Session(database) as session:
        row = session.get_one(TrainingJob, job)
        for name, value in values.items():
            setattr(row, name, value)
        session.commit()


def programs(job: str) -> list[psutil.Process]:
    running = psutil.process_iter(["cmdline"])
    return [each for each in running if job in " ".join(each.info["cmdline"] or ())]


def events(database: Engine, job: str) -> list[TrainingEvent]:
    with Session(database, expire_on_commit=False) as session:
        return list(session.exec(select(TrainingEvent).where(TrainingEvent.job_id == job)))


def weights(database: Engine, settings: ScalerSettings, ref: str) -> bytes:
    repo, _, version = ref.partition("/")
    with Session(database) as session:
        mine = (Adapter.repo == repo, Adapter.version == int(version))
        digest = session.exec(select(Adapter.digest).where(*mine)).one()
    return (settings.adapters_dir / digest / "adapter_model.safetensors").read_bytes()


def test_a_job_becomes_a_version_and_tells_its_loss(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job = make(settings=SETTINGS | {"validation_split": 0.25})
    run = TrainingRun(database, settings, job)
    assert run.begin() and not TrainingRun(database, settings, job).begin()
    run.carry_out()
    row = read(database, job)
    assert (row.state, row.error, row.adapter) == ("succeeded", "", "sums/1")
    assert (row.step, row.total_steps) == (10, 10), "18 rows, 4 a step, twice"
    assert row.tokens > 0 and row.validation_loss is not None and row.finished_at is not None
    told = events(database, job)
    losses = [e.figures["loss"] for e in told if e.figures and "loss" in e.figures]
    assert len(losses) == 10 and losses[-1] < losses[0]
    assert "18 rows to learn from, 6 to validate with" in told[0].message
    assert told[-1].message == "sums/1 can be used."
    assert not (settings.training_dir / job).exists()


@pytest.mark.parametrize(
    "how",
    [
        {"epochs": 10},
        {"epochs": 60, "batch_size": 24},  # each step is an epoch
        {"epochs": 60, "batch_size": 18, "validation_split": 0.25, "early_stopping": 60},
    ],
    ids=str,
)
def test_it_yields_and_goes_on_to_the_same_end(
    how: dict[str, Any], database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    longer = SETTINGS | how
    whole = make(settings=longer)
    run = TrainingRun(database, settings, whole)
    assert run.begin()
    run.carry_out()

    other = make(repo="others", settings=longer)

    def ask() -> bool:
        """As the scaler does, when its place is wanted."""
        if read(database, other).step >= 3:
            change(database, other, yielding=True)
        return False

    yielding = TrainingRun(database, settings, other, ask)
    assert yielding.begin()
    yielding.carry_out()
    row = read(database, other)
    assert (row.state, row.runner) == ("queued", "") and 3 <= row.step < row.total_steps
    assert (row.host, row.slot, row.yielding) == ("", None, False)
    change(database, other, host="local", slot=0)
    heir = TrainingRun(database, settings, other)
    assert heir.begin()
    heir.carry_out()
    assert read(database, other).state == "succeeded"
    begun = [e.message for e in events(database, other) if e.message.startswith("Begins")]
    assert len(begun) == 2 and "step 0 " in begun[0] and "step 0 " not in begun[1]
    same = [weights(database, settings, ref) for ref in ("sums/1", "others/1")]
    assert same[0] == same[1], "as if nothing had happened"


def test_five_deaths_leave_no_trace(
    database: Engine,
    settings: ScalerSettings,
    make: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the program and its watcher, at random: the same weights, and each loss once."""

    class Died(BaseException):
        """Nothing after it is done, as when a process is killed."""

    monkeypatch.setattr("scheduler.training_run.LOOK_EACH_S", 0.02)  # it dies where it should
    longer = SETTINGS | {"epochs": 15, "checkpoint_s": 0.05, "validation_split": 0.25}
    whole, other = make(settings=longer), make(repo="others", settings=longer)
    run = TrainingRun(database, settings, whole)
    assert run.begin()
    run.carry_out()
    draw = Random(3)

    def dying(at_step: int) -> Callable[[], bool]:
        def dies() -> bool:
            if read(database, other).step >= at_step:
                for process in programs(other):
                    process.kill()
                raise Died
            return False

        return dies

    last = read(database, whole).total_steps
    deaths = sorted(draw.sample(range(2, last - 4), 5))
    for at_step in (*deaths, last + 1):
        run = TrainingRun(database, settings, other, dying(at_step))
        assert run.begin()
        with suppress(Died):
            run.carry_out()
        died = at_step <= last
        assert (read(database, other).state == "running") == died, events(database, other)[-1]
        if died:
            change(database, other, state=WorkState.QUEUED.value, runner="", host="local")

    def told(job: str, kind: str) -> list[tuple[int, float]]:
        found = [e.figures for e in events(database, job) if e.figures and kind in e.figures]
        return [(each["step"], each[kind]) for each in found]

    for kind in ("loss", "eval_loss"):
        assert told(whole, kind) == told(other, kind)
    steps = [step for step, _ in told(other, "loss")]
    assert steps == list(range(1, read(database, other).total_steps + 1))
    same = [weights(database, settings, ref) for ref in ("sums/1", "others/1")]
    assert same[0] == same[1]


def test_epochs_are_kept_as_checkpoints_and_one_can_be_gone_on_from(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job = make(settings=SETTINGS | {"epochs": 4, "checkpoints": 2, "validation_split": 0.25})
    run = TrainingRun(database, settings, job)
    assert run.begin()
    run.carry_out()
    with Session(database, expire_on_commit=False) as session:
        rows = session.exec(select(Adapter).order_by(col(Adapter.checkpoint))).all()
    assert [(r.ref, r.deleted_at is None) for r in rows] == [
        ("sums/1", True),
        ("sums/1@5", False),
        ("sums/1@10", True),
        ("sums/1@15", True),
    ]
    assert len({row.digest for row in rows}) == 4
    end, kept = rows[0].lineage, rows[2].lineage
    assert end["job"] == job and end["steps"] == 20 and end["validation_loss"] > 0
    assert (kept["steps"], kept["epoch"]) == (10, 2.0) and kept["validation_loss"] > 0
    assert read(database, job).left_s == 0

    (config,) = (settings.adapters_dir / rows[2].digest).glob("adapter_config.json")
    slow = json.loads(config.read_text()) | {"target_modules": r"(([a-z0-9_]+)\.?)+X"}
    config.write_text(json.dumps(slow))  # as a stranger's may say
    same = make(repo="on", parent="sums/1@10", settings=SETTINGS | {"rank": 64, "max_steps": 1})
    run = TrainingRun(database, settings, same)
    assert run.begin()
    run.carry_out()
    with Session(database) as session:
        further = session.exec(select(Adapter).where(Adapter.repo == "on")).one()
        assert further.rank == SETTINGS["rank"], "the parent's"
        assert further.lineage["parent"] == "sums/1@10"
    first, learned = (
        [e.figures["loss"] for e in events(database, each) if e.figures and "loss" in e.figures]
        for each in (same, job)
    )
    assert first[0] < learned[0], "it goes on from what was learned"


def test_packed_rows_are_learned_from_as_padded_ones(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    uneven = [{"prompt": "a " * (1 + n % 7), "completion": "b " * (1 + n % 3)} for n in range(24)]
    file = store(database, settings, uneven)

    def losses(**changes: Any) -> list[float]:
        job = make(training_file=file, repo=new_id("r"), settings=SETTINGS | changes)
        run = TrainingRun(database, settings, job)
        assert run.begin()
        run.carry_out()
        row = read(database, job)
        assert row.state == "succeeded", row.error
        told = [e.figures for e in events(database, job) if e.figures]
        return [row.tokens, *(each["loss"] for each in told)]

    padded = losses()
    assert losses(packing=True) == pytest.approx(padded, rel=1e-4)
    assert losses(gradient_accumulation_steps=4) == pytest.approx(padded, rel=1e-4)


def test_one_that_is_cancelled_leaves_nothing(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job = make(settings=SETTINGS | {"epochs": 500})

    def cancel() -> bool:
        if read(database, job).step:
            change(database, job, state=WorkState.CANCELLED.value)
        return False

    run = TrainingRun(database, settings, job, cancel)
    assert run.begin()
    run.carry_out()
    row = read(database, job)
    assert (row.state, row.host) == ("cancelled", "")
    with Session(database) as session:
        assert not session.exec(select(Adapter)).all()
    assert not (settings.training_dir / job).exists()


def test_one_that_does_not_leave_in_time_is_killed_and_goes_on(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job = make(settings=SETTINGS | {"epochs": 500})
    hurried = settings.model_copy(update={"training_yield_s": 0.1})

    def stop_it() -> bool:
        """Its program hangs, then its place is wanted."""
        if read(database, job).step:
            for process in programs(job):
                process.suspend()
            change(database, job, yielding=True)
        return False

    run = TrainingRun(database, hurried, job, stop_it)
    assert run.begin()
    run.carry_out()
    row = read(database, job)
    assert (row.state, row.host, row.attempts) == ("queued", "", 0)
    assert "gave its place away" in events(database, job)[-1].message


def test_what_cannot_be_trained_fails_with_its_reason(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    for changes, told in (
        ({"settings": SETTINGS | {"target_modules": ["nothing"]}}, "nothing"),
        ({"settings": SETTINGS | {"target_modules": ["lm_head"]}}, "output layer"),
        ({"base_model": "org/none--"}, "neither a hub name"),
        ({"training_file": "file-00000000"}, "is gone"),
        ({"attempts": MOST_ATTEMPTS}, "died"),
    ):
        job = make(**changes)
        run = TrainingRun(database, settings, job)
        assert run.begin()
        run.carry_out()
        row = read(database, job)
        assert row.state == "failed" and told in row.error, row.error


def test_one_run_has_it_whoever_asks_and_none_without_a_place(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job, waits = make(), make(host="")
    runs = [TrainingRun(database, settings, job) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda run: run.begin(), runs)) == 1
    assert not TrainingRun(database, settings, waits).begin()


def test_a_database_that_is_away_for_a_moment_ends_no_training(
    database: Engine,
    settings: ScalerSettings,
    make: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make(settings=SETTINGS | {"epochs": 20})
    plain, fails = Claim.write, iter([False] * 3 + [True] * 2)

    def write(self: Claim[TrainingJob], *also: Any, **values: Any) -> bool:
        if values.get("step") and next(fails, False):
            raise OperationalError("", {}, Exception("database is locked"))
        return plain(self, *also, **values)

    monkeypatch.setattr(Claim, "write", write)
    run = TrainingRun(database, settings, job)
    assert run.begin()
    run.carry_out()
    assert read(database, job).state == "succeeded"
    assert next(fails, None) is None, "it was away"


def test_one_whose_program_is_killed_waits_for_another_run(
    database: Engine, settings: ScalerSettings, make: Callable[..., str]
) -> None:
    job = make(settings=SETTINGS | {"epochs": 500})

    def kill() -> bool:
        if read(database, job).step:
            for process in programs(job):
                process.kill()
        return False

    run = TrainingRun(database, settings, job, kill)
    assert run.begin()
    run.carry_out()
    assert read(database, job).state == "queued"
    assert "killed" in events(database, job)[-1].message


def test_a_loss_that_is_no_number_ends_it_and_other_such_figures_are_left_out(
    tmp_path: Path,
) -> None:
    from transformers import TrainerState

    from gpu_worker.training.run import Reports

    reports, state = Reports(tmp_path, 60.0), TrainerState(global_step=1, max_steps=2, epoch=0.5)
    reports.on_log(None, state, None, logs={"loss": 1.0, "grad_norm": float("nan")})
    told = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert told["loss"] == 1.0 and "grad_norm" not in told
    with pytest.raises(FloatingPointError, match="learning rate"):
        reports.on_log(None, state, None, logs={"loss": float("inf")})


def test_a_long_training_is_told_ever_more_rarely(tmp_path: Path) -> None:
    from transformers import TrainerState

    from gpu_worker.training.run import Reports

    reports, told = Reports(tmp_path, 60.0), tmp_path / "metrics.jsonl"
    for step in range(1, 301):
        state = TrainerState(global_step=step, max_steps=300, epoch=0.5)
        reports.on_log(None, state, None, logs={"loss": 1.0})
    steps = [json.loads(line)["step"] for line in told.read_text().splitlines()]
    assert steps[:100] == list(range(1, 101)) and steps[-1] == 300 and len(steps) < 200


def test_the_loss_is_of_what_the_model_is_to_say(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    from gpu_worker.training.examples import IGNORED, example

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    said = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "ONE"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "TWO"},
    ]

    def learned(row: dict[str, Any]) -> tuple[str, str]:
        found = example(row, tokenizer, 1024)
        counts = [i for i, label in zip(found.ids, found.labels, strict=True) if label != IGNORED]
        return tokenizer.decode(found.ids), tokenizer.decode(counts)

    whole, counts = learned({"messages": said})
    assert whole == tokenizer.apply_chat_template(said, tokenize=False).rstrip("\n")
    assert counts == "ONE<|im_end|>TWO<|im_end|>"
    assert learned({"prompt": "a", "completion": "b"}) == ("ab<|im_end|>", "b<|im_end|>")
    assert learned({"text": "a"}) == ("a<|im_end|>", "a<|im_end|>")
    # One that leaves out what was thought in earlier turns, as Qwen3's does.
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and loop.last %}<think>"
        "{% endif %}{{ m.content }};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    whole, counts = learned({"messages": said})
    assert whole == "user:one;assistant:ONE;user:two;assistant:TWO<|im_end|>"
    assert counts == "TWO<|im_end|>"
