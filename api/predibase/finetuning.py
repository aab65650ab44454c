"""Fine-tuning as Predibase's SDK (2025.10.3) asks for it and watches it.

A job's version has its number from the beginning: `repo/3` is being trained.
"""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlmodel import Session, select
from starlette.websockets import WebSocket, WebSocketDisconnect

from api.control.deployments import check_path
from api.control.training_schemas import LEARNING_RATE, Module, TrainingSettings
from api.errors import ApiError, bad_request
from api.keyring import Caller
from api.registry import trainings
from api.registry.training_news import LOOK_EACH_S, news, watching
from api.security import ForAdapters, ForLooking
from api.state import State, StateDep
from api.text import Text
from loraplex.entities import (
    Dataset,
    TrainingJob,
    WorkState,
)

router = APIRouter(prefix="/v2/finetuning/jobs", tags=["predibase"])

STREAM = "/v2/finetuning/jobs/{job}/metrics/stream"
_STATUS = {
    WorkState.QUEUED: "queued",
    WorkState.RUNNING: "training",
    WorkState.SUCCEEDED: "completed",
    WorkState.FAILED: "errored",
    WorkState.CANCELLED: "canceled",
}


def _unset(value: Any) -> Any:
    if value:
        raise ValueError("this isn't supported here; leave it out")
    return value


class Scheduler(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["linear", "cosine", "constant"] | None = None


class Params(BaseModel):
    """The SDK's config; null is unset. `train_steps` wins over `epochs`."""

    model_config = ConfigDict(extra="forbid")
    base_model: Text | None = Field(None, max_length=512)
    adapter: Literal["lora"] | None = None
    task: Literal["sft", "continued_pretraining"] | None = None
    epochs: int | None = Field(None, ge=1, le=1000)
    train_steps: int | None = Field(None, ge=1, le=1_000_000)
    learning_rate: float | None = Field(None, gt=0, le=1)
    rank: int | None = Field(None, ge=1, le=256)
    target_modules: list[Module] | None = Field(None, max_length=64)
    enable_early_stopping: bool | None = None
    apply_chat_template: bool | None = None
    lr_scheduler: Scheduler | None = None
    optimizer: Annotated[Any, AfterValidator(_unset)] = None
    lora_alpha: int | None = Field(None, ge=1, le=4096)
    lora_dropout: float | None = Field(None, ge=0, lt=1)
    warmup_ratio: float | None = Field(None, ge=0, lt=1)
    effective_batch_size: int | None = Field(None, ge=1, le=1024)

    def settings(self) -> TrainingSettings:
        early = bool(self.enable_early_stopping)
        found = {
            "rank": self.rank,
            "alpha": self.lora_alpha,
            "dropout": self.lora_dropout,
            "target_modules": self.target_modules or None,
            "epochs": self.epochs,
            "max_steps": self.train_steps,
            "batch_size": self.effective_batch_size,
            "learning_rate": self.learning_rate,
            "schedule": self.lr_scheduler.type if self.lr_scheduler else None,
            "warmup_ratio": self.warmup_ratio,
            "as_chat": self.apply_chat_template,
            "early_stopping": 3 if early else None,
            "validation_split": 0.1 if early else None,
        }
        return TrainingSettings(**{name: v for name, v in found.items() if v is not None})


class JobCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    params: Params
    dataset: Text = Field(min_length=1, max_length=256)
    repo: Text
    description: Text | None = Field(None, max_length=1024)
    continueFromVersion: Text | None = Field(None, max_length=128)
    computeSpec: Annotated[Any, AfterValidator(_unset)] = None


@router.get("/cost-estimate")
async def cost_estimate(tenant: ForLooking) -> dict[str, float]:
    """Training costs nothing here but time."""
    return {"estimatedCost": 0.0}


@router.post("")
async def create(
    body: JobCreate, http: Request, tenant: ForAdapters, state: StateDep
) -> dict[str, Any]:
    params = body.params
    model = body.continueFromVersion or params.base_model
    if model is None:
        raise bad_request("params.base_model is missing.", "params.base_model")
    check_path(http, model)
    job = await trainings.begin(
        state,
        tenant,
        trainings.Wanted(
            model=model,
            repo=body.repo,
            training=body.dataset.removeprefix("file_uploads/"),
            settings=params.settings(),
            notes={"description": body.description} if body.description else {},
        ),
    )
    return await run_in_threadpool(_read, state, tenant, job.id)


@router.get("/{job}")
def get(job: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    return _read(state, tenant, job)


@router.get("/{job}/timeline")
def timeline(job: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    with Session(state.database) as session:
        row = trainings.need(session, tenant, job)
        found = {"queued": {"startedAt": row.created_at.isoformat()}}
        if row.started_at is not None:
            found["training"] = {"startedAt": row.started_at.isoformat()}
        return found


@router.get("/{job}/tensorboard_logs")
def tensorboard_logs(job: str, tenant: ForLooking, state: StateDep) -> dict[str, Any]:
    """There are none; losses are among the events."""
    with Session(state.database) as session:
        trainings.need(session, tenant, job)
    return {"files": [], "more": False}


@router.post("/{job}/cancel")
def cancel(job: str, tenant: ForAdapters, state: StateDep) -> dict[str, Any]:
    with Session(state.database) as session:
        return _shown(session, trainings.cancel(session, trainings.need(session, tenant, job)))


@router.put("/{job}/config")
async def change(job: str, tenant: ForAdapters) -> None:
    message = "A job isn't changed while it runs: cancel it, and begin another."
    raise ApiError(400, "not_supported", message)


async def stream_metrics(socket: WebSocket) -> None:
    """What the job told, and what it tells from now on; closed when it has ended."""
    state: State = socket.app.state.loraplex
    caller = await _caller(state, socket)
    if caller is None:
        await socket.close(4401)
        return
    try:
        with watching(caller.tenant):
            await socket.accept()
            await _send_news(state, socket, caller.tenant, socket.path_params["job"])
    except WebSocketDisconnect:
        return
    except ApiError as refused:
        await socket.close(4000 + refused.status)


async def _send_news(state: State, socket: WebSocket, tenant: str, job: str) -> None:
    seen, ended = 0, False
    while not ended:
        row, told, ended = await news(state, tenant, job, seen)
        for event in told:
            seen = event.id or seen
            if event.figures:
                await socket.send_json(_message(row, event.figures, ended=False))
        if ended:
            await socket.send_json(_message(row, {}, ended=True))
            await socket.close(1000)
        elif await _gone(socket):
            return


async def _gone(socket: WebSocket) -> bool:
    """Within a pause; what it says is nothing to us."""
    try:
        async with asyncio.timeout(LOOK_EACH_S):
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass
    except TimeoutError:
        return False
    return True


async def _caller(state: State, socket: WebSocket) -> Caller | None:
    try:
        key = socket.headers.get("authorization", "")
        return await run_in_threadpool(state.keyring.find, key)
    except ApiError:
        return None


def _message(row: TrainingJob, figures: dict[str, Any], *, ended: bool) -> dict[str, Any]:
    """`checkpoint_number` 0: the SDK's table fails at others, without a word."""
    data = {
        "steps": figures.get("step", row.step),
        "checkpoint_number": 0,
        "epoch": int(figures.get("epoch", 0)),
        "train_metrics_loss": figures.get("loss", row.loss),
        "validation_metrics_loss": figures.get("eval_loss", row.validation_loss),
        "learning_rate": figures.get("learning_rate"),
        "total_tokens_used": figures.get("tokens", row.tokens),
    }
    meta = {
        "is_completed": ended,
        "model_uuid": row.id,
        "run_id": row.id,
        "steps": figures.get("step", row.step),
        "steps_per_epoch": max(1, round(row.total_steps / max(1.0, row.settings["epochs"]))),
        "total_steps": row.total_steps,
    }
    return {"data": data, "meta": meta}


def version_shown(row: TrainingJob) -> dict[str, Any]:
    """Of the version that a job is to become, as the SDK reads versions."""
    return {
        "repo": row.repo,
        "tag": row.version,
        "archived": False,
        "baseModel": row.base_model,
        "status": _STATUS[WorkState(row.state)],
        "adapterPath": "",
        "description": row.notes.get("description"),
        "checkpoint": None,
        "finetuningJob": {"uuid": row.id, "error": row.error or None},
    }


def _read(state: State, tenant: str, job: str) -> dict[str, Any]:
    with Session(state.database) as session:
        return _shown(session, trainings.need(session, tenant, job))


def _shown(session: Session, row: TrainingJob) -> dict[str, Any]:
    named = select(Dataset.name).where(Dataset.file_id == row.training_file)
    repo, _, version = row.adapter.partition("/")
    return {
        "uuid": row.id,
        "baseModel": row.base_model,
        "datasetName": session.exec(named).first() or row.training_file,
        "description": row.notes.get("description"),
        "targetRepoName": repo or row.repo,
        "targetVersionTag": int(version or row.version),
        "accelerator": {"id": ""},
        "status": _STATUS[WorkState(row.state)],
        "params": dict(_params(row)),
    }


def _params(row: TrainingJob) -> Iterator[tuple[str, Any]]:
    settings = row.settings
    yield from {"base_model": row.base_model, "adapter": "lora", "task": "sft"}.items()
    yield "epochs", max(1, int(settings["epochs"]))
    yield "train_steps", settings["max_steps"]
    yield "learning_rate", settings.get("learning_rate", LEARNING_RATE)
    yield "rank", settings["rank"]
    yield "target_modules", settings["target_modules"] or None
    yield "lora_alpha", settings["alpha"]
    yield "effective_batch_size", settings["batch_size"]
