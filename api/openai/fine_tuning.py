"""/v1/fine_tuning/jobs: supervised tuning of a LoRA adapter, as OpenAI's clients ask for it.

`model` is a base model, a deployment, or an adapter that is trained further; the result,
`fine_tuned_model`, is an adapter's version.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.control.deployments import check_path
from api.control.training_schemas import LEARNING_RATE, TrainingSettings
from api.errors import bad_request
from api.openai.files import page
from api.openai.schemas import neutral
from api.registry import trainings
from api.registry.training_news import LOOK_EACH_S, news, watching
from api.requests.event_stream import EventStream
from api.requests.sse import encode
from api.security import ForAdapters, ForLooking
from api.state import State, StateDep
from api.text import Text
from loraplex.entities import Adapter, TrainingEvent, TrainingJob, WorkState

router = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"])

_MOST_NOTES = 16
NoteName = Annotated[Text, Field(max_length=64)]
Note = Annotated[Text, Field(max_length=512)]


class Hyperparameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = "auto"
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(ge=1e-6, le=1000)] = "auto"


class Supervised(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class Method(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["supervised"]
    supervised: Supervised = Field(default_factory=Supervised)


class JobCreate(BaseModel):
    """`suffix`: the repo's name. `lora`: what OpenAI's API has no words for."""

    model_config = ConfigDict(extra="forbid")
    model: Text = Field(min_length=1, max_length=512)
    training_file: Text = Field(max_length=128)
    validation_file: Text | None = Field(None, max_length=128)
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    suffix: Text | None = Field(None, max_length=63)
    seed: int | None = Field(None, ge=0, lt=2**32)
    metadata: dict[NoteName, Note] | None = Field(None, max_length=_MOST_NOTES)
    integrations: Annotated[Any, neutral([])] = None
    lora: TrainingSettings | None = None

    def settings(self) -> TrainingSettings:
        """Raises ApiError."""
        if self.method and self.hyperparameters:
            raise bad_request("Give hyperparameters or method, not both.", "hyperparameters")
        given = self.method.supervised.hyperparameters if self.method else self.hyperparameters
        found = (self.lora or TrainingSettings()).model_dump(exclude_unset=True)
        if given is not None and given.n_epochs != "auto":
            found["epochs"] = given.n_epochs
        if given is not None and given.batch_size != "auto":
            found["batch_size"] = given.batch_size
        if given is not None and given.learning_rate_multiplier != "auto":
            found["learning_rate"] = min(1.0, LEARNING_RATE * given.learning_rate_multiplier)
        if self.seed is not None:
            found["seed"] = self.seed
        return TrainingSettings(**found)


@router.post("")
async def create(
    body: JobCreate, http: Request, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    """Mistakes of the files are told here, with their lines."""
    check_path(http, body.model)
    wanted = trainings.Wanted(
        model=body.model,
        repo=body.suffix or _repo(body.model),
        training=body.training_file,
        validation=body.validation_file or "",
        settings=body.settings(),
        notes=body.metadata or {},
    )
    return shown(await trainings.begin(state, tenant, wanted))


@router.get("")
def list_jobs(
    tenant: ForLooking,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
) -> dict[str, Any]:
    """The newest first."""
    with Session(state.database) as session:
        rows = [shown(row) for row in trainings.of_tenant(session, tenant)]
        return page(rows, limit, after, reverse=True)


@router.get("/{job}")
def retrieve(job: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    with Session(state.database) as session:
        return shown(trainings.need(session, tenant, job))


@router.post("/{job}/cancel")
def cancel(job: str, tenant: ForAdapters, state: StateDep) -> dict[str, Any]:
    with Session(state.database) as session:
        return shown(trainings.cancel(session, trainings.need(session, tenant, job)))


@router.get("/{job}/checkpoints")
def checkpoints(
    job: str,
    tenant: ForLooking,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    after: str | None = None,
) -> dict[str, Any]:
    """The newest first."""
    with Session(state.database) as session:
        row = trainings.need(session, tenant, job)
        rows = [_checkpoint(row, each) for each in trainings.checkpoints(session, row)]
        return page(rows, limit, after, reverse=True)


@router.get("/{job}/events", response_model=None)
async def events(
    job: str,
    http: Request,
    tenant: ForLooking,
    state: StateDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: str | None = None,
    stream: bool = False,
) -> dict[str, Any] | EventStream:
    """The newest first. `stream`: all of them, the oldest first, as Server-Sent Events until the
    job has ended; `after`, or the header `Last-Event-ID`, is the last one that one has."""
    if stream:
        seen = http.headers.get("last-event-id") or after
        return await _stream(state, tenant, job, _number(seen) if seen else 0)
    return await run_in_threadpool(_events, state, tenant, job, limit, after)


def _events(state: State, tenant: str, job: str, limit: int, after: str | None) -> dict[str, Any]:
    with Session(state.database) as session:
        row = trainings.need(session, tenant, job)
        before = _number(after) if after is not None else None
        found = trainings.latest_events(session, row.id, before, limit + 1)
    shown_ = [_event(each) for each in found[:limit]]
    return {"object": "list", "data": shown_, "has_more": len(found) > limit}


async def _stream(state: State, tenant: str, job: str, seen: int) -> EventStream:
    """Raises ApiError."""
    await news(state, tenant, job, seen)  # what is wrong has a status of its own
    place = ExitStack()
    place.enter_context(watching(tenant))

    async def told() -> AsyncIterator[bytes]:
        at, ended = seen, False
        with place:
            while not ended:
                _, found, ended = await news(state, tenant, job, at)
                for event in found:
                    at = event.id or at
                    yield encode(_event(event), f"ftevent-{event.id}")
                if not ended:
                    await asyncio.sleep(LOOK_EACH_S)
            yield b"data: [DONE]\n\n"

    async def gone(_: Any) -> None:
        """Also when the client leaves before the first event is asked for."""
        place.close()

    return EventStream(told(), ping=15, heartbeat=_heartbeat, client_close_handler_callable=gone)


async def _heartbeat() -> bytes:
    return b": it runs\n"


def shown(row: TrainingJob) -> dict[str, Any]:
    settings = row.settings
    hyperparameters = {
        "n_epochs": settings["epochs"],
        "batch_size": settings["batch_size"],
        "learning_rate_multiplier": settings["learning_rate"] / LEARNING_RATE,
    }
    failed = row.state == WorkState.FAILED
    error = {"code": "training_failed", "message": row.error, "param": None} if failed else None
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": int(row.created_at.timestamp()),
        "finished_at": int(row.finished_at.timestamp()) if row.finished_at else None,
        "estimated_finish": _estimate(row),
        "model": row.base_model,
        "fine_tuned_model": row.adapter or None,
        "organization_id": row.tenant_id,
        "status": row.state,
        "error": error,
        "training_file": row.training_file,
        "validation_file": row.validation_file or None,
        "result_files": [],
        "trained_tokens": row.tokens if row.state == WorkState.SUCCEEDED else None,
        "hyperparameters": hyperparameters,
        "method": method,
        "seed": settings["seed"],
        "integrations": [],
        "user_provided_suffix": row.repo,
        "metadata": row.notes,
        "progress": {"step": row.step, "total_steps": row.total_steps, "loss": row.loss},
        "trained_from": row.parent or None,
    }


def _estimate(row: TrainingJob) -> int | None:
    """Unix seconds; None: nobody can know."""
    if row.state != WorkState.RUNNING or row.left_s is None:
        return None
    return int(row.beat_at.timestamp() + row.left_s)


def _checkpoint(job: TrainingJob, row: Adapter) -> dict[str, Any]:
    figures = row.lineage
    metrics = {
        "step": figures.get("steps"),
        "train_loss": figures.get("loss"),
        "valid_loss": figures.get("validation_loss"),
    }
    return {
        "id": row.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(row.created_at.timestamp()),
        "fine_tuned_model_checkpoint": row.ref,
        "fine_tuning_job_id": job.id,
        "step_number": figures.get("steps"),
        "metrics": {name: value for name, value in metrics.items() if value is not None},
    }


def _event(row: TrainingEvent) -> dict[str, Any]:
    figures = row.figures or {}
    names = {"loss": "train_loss", "eval_loss": "valid_loss"}
    data = {names.get(name, name): value for name, value in figures.items()}
    return {
        "id": f"ftevent-{row.id}",
        "object": "fine_tuning.job.event",
        "created_at": int(row.at.timestamp()),
        "level": row.level,
        "message": row.message,
        "type": "metrics" if figures else "message",
        "data": data or None,
    }


def _number(event: str) -> int:
    """Raises ApiError 400."""
    number = event.removeprefix("ftevent-")
    if not number.isdecimal() or len(number) > 18:
        raise bad_request(f"{event[:80]!r} is no event.", "after")
    return int(number)


def _repo(model: str) -> str:
    """After the model, where no suffix is given."""
    last = model.rpartition("/")[2]
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in last)
    return f"{kept[:55].strip('._-') or 'model'}-tuned"
