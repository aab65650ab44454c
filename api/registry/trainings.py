"""Fine-tuning jobs: asked for here, run by a task worker."""

import re
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import func, update
from sqlmodel import Session, col, select

from api.control.deployments import check_base_model
from api.control.training_schemas import TrainingSettings
from api.errors import ApiError, bad_request
from api.openai.files import need_file
from api.registry import datasets, repos
from api.requests.resolve import find_named, find_usable
from api.state import State
from loraplex import storage_quota
from loraplex.compare_and_set import changed
from loraplex.datasets import DatasetInvalid, inspect
from loraplex.entities import (
    UNFINISHED,
    Adapter,
    TrainingEvent,
    TrainingJob,
    WorkState,
    utc_now,
)
from loraplex.registry import checkpoints_of, find_adapter, next_version

_MOST_AT_ONCE = 20  # of a tenant


@dataclass(frozen=True, slots=True)
class Wanted:
    """`model`: a base model, a deployment of one, or an adapter that it goes on from, also as
    `deployment:adapter`. Files: ids, or names of datasets."""

    model: str
    repo: str
    training: str
    validation: str = ""
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    notes: dict[str, str] = field(default_factory=dict)


async def begin(state: State, tenant: str, wanted: Wanted) -> TrainingJob:
    """What is wrong with the files is told here, with lines. Raises ApiError."""
    row = await run_in_threadpool(_store, state, tenant, wanted)
    await state.broker.wake_scaler(row.id)
    return row


def need(session: Session, tenant: str, job: str) -> TrainingJob:
    """Raises ApiError 404."""
    row = session.get(TrainingJob, job)
    if row is None or row.tenant_id != tenant:
        raise ApiError(404, "not_found", f"There is no fine-tuning job {job[:80]!r}.")
    return row


def of_tenant(session: Session, tenant: str) -> list[TrainingJob]:
    """The oldest first."""
    wanted = select(TrainingJob).where(TrainingJob.tenant_id == tenant)
    return list(session.exec(wanted.order_by(col(TrainingJob.created_at), col(TrainingJob.id))))


def latest_events(session: Session, job: str, before: int | None, most: int) -> list[TrainingEvent]:
    """The newest first."""
    wanted = select(TrainingEvent).where(TrainingEvent.job_id == job)
    if before is not None:
        wanted = wanted.where(col(TrainingEvent.id) < before)
    return list(session.exec(wanted.order_by(col(TrainingEvent.id).desc()).limit(most)))


def for_version(session: Session, tenant: str, repo: str, version: str) -> TrainingJob | None:
    """The one that is to become it, or didn't."""
    if not version.isdecimal() or len(version) > 9:
        return None
    wanted = select(TrainingJob).where(
        TrainingJob.tenant_id == tenant,
        TrainingJob.repo == repo,
        TrainingJob.version == int(version),
        TrainingJob.state != WorkState.SUCCEEDED,
    )
    return session.exec(wanted).first()


def cancel(session: Session, row: TrainingJob) -> TrainingJob:
    """Raises ApiError 409 for one that has ended."""
    wanted = update(TrainingJob).where(
        col(TrainingJob.id) == row.id, col(TrainingJob.state).in_(UNFINISHED)
    )
    end = {"state": WorkState.CANCELLED.value, "finished_at": utc_now()}
    done = changed(session, wanted.values(**end))
    if done:
        session.add(TrainingEvent(job_id=row.id, message="It was cancelled."))
    session.commit()
    session.refresh(row)
    if not done:
        raise ApiError(409, "conflict", f"Job {row.id!r} has ended: {row.state}.")
    return row


def _store(state: State, tenant: str, wanted: Wanted) -> TrainingJob:
    repos.check_name(wanted.repo)
    training = _checked(state, tenant, wanted.training, "training_file")
    validation = ""
    settings = wanted.settings
    if wanted.validation and settings.validation_split:
        raise bad_request("Give a validation file or validation_split, not both.", "lora")
    if settings.early_stopping and not (wanted.validation or settings.validation_split):
        message = "early_stopping looks at the validation: give a file, or validation_split."
        raise bad_request(message, "lora")
    if wanted.validation:
        validation = _checked(state, tenant, wanted.validation, "validation_file")
    with Session(state.database, expire_on_commit=False) as session:
        base_model, parent = _begins_at(session, tenant, wanted)
        check_base_model(state, base_model)
        unfinished = select(func.count()).where(
            col(TrainingJob.tenant_id) == tenant, col(TrainingJob.state).in_(UNFINISHED)
        )
        if session.exec(unfinished).one() >= _MOST_AT_ONCE:
            message = f"At most {_MOST_AT_ONCE} jobs at once. Wait, or cancel one."
            raise ApiError(429, "too_many", message, retry_after_s=60)
        repos.create(session, tenant, wanted.repo, "", exists_ok=True)
        storage_quota.lock(session, tenant)  # so that the number is its own
        row = TrainingJob(
            tenant_id=tenant,
            base_model=base_model,
            repo=wanted.repo,
            version=next_version(session, tenant, wanted.repo),
            training_file=training,
            validation_file=validation,
            parent=parent,
            settings=wanted.settings.for_the_program(),
            notes=wanted.notes,
        )
        session.add(row)
        session.commit()
        return row


def _begins_at(session: Session, tenant: str, wanted: Wanted) -> tuple[str, str]:
    """Base model and, where it goes on from one, adapter. Raises ApiError."""
    name, _, ref = wanted.model.partition(":")
    deployment = find_usable(session, tenant, name)
    if deployment is not None and not ref:
        return deployment.base_model, ""
    model = ref if deployment else wanted.model
    named = find_named(session, tenant, model)
    if named is None:
        repo = re.split("[/@]", model)[0]
        if deployment is not None or repos.find(session, tenant, repo) or "@" in model:
            raise ApiError(404, "not_found", f"There is no adapter {model[:80]!r}.", param="model")
        return wanted.model, ""
    given = sorted({"rank", "alpha", "target_modules"} & wanted.settings.model_fields_set)
    if given:
        message = f"{named[0][0].ref} has its own {', '.join(given)}: leave them out."
        raise bad_request(message, "lora")
    if len(named) > 1:
        raise bad_request(f"{wanted.model!r} is several versions; name one.", "model")
    adapter = named[0][0]
    if deployment is not None and deployment.base_model != adapter.base_model:
        message = f"{adapter.ref} is for {adapter.base_model}, {name} for {deployment.base_model}."
        raise bad_request(message, "model")
    return adapter.base_model, adapter.ref


def checkpoints(session: Session, row: TrainingJob) -> list[Adapter]:
    """The oldest first; the end last."""
    found = session.exec(checkpoints_of(row)).all()[::-1]
    end = find_adapter(session, row.tenant_id, row.adapter)
    return [*found, end] if end is not None else [*found]


def _checked(state: State, tenant: str, named: str, param: str) -> str:
    """The id of a file that can be learned from. Raises ApiError."""
    with Session(state.database) as session:
        dataset = datasets.find(session, tenant, named)
    file = need_file(state, tenant, dataset.file_id if dataset else named, param)
    if dataset is None:  # a dataset was checked when it came
        try:
            inspect(state.files.path(file.id), file.filename)
        except DatasetInvalid as wrong:
            message = f"{file.filename} refused: {wrong}"
            raise bad_request(message, param, "invalid_training_file") from wrong
    return file.id
