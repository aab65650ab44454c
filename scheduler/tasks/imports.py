"""Check and fetch what a deployment needs before its first replica can start."""

import logging

from sqlmodel import Session

from loraplex import lifecycle
from loraplex.broker.connection import connect as connect_redis
from loraplex.database import connect
from loraplex.entities import Deployment, Revision
from loraplex.keys import WAKE_CHANNEL
from loraplex.needed_models import needed_models
from loraplex.status import ADMITTING, Event, Status
from loraplex.store.models import ModelBusy, ModelUnavailable, is_path
from scheduler.base_models import store_with_room
from scheduler.tasks.app import app, settings
from scheduler.tasks.progress import ProgressRow

log = logging.getLogger(__name__)
_engine = connect(settings.database)
_redis = connect_redis(settings.redis_url)

_models = store_with_room(_engine, settings)


@app.task
def prepare_deployment(deployment_id: str) -> None:
    """Fetch what the target revision needs. Pending → Standby, or Errored with the reason; a change
    of what could serve is taken back. Safe to run twice: the row decides."""
    with Session(_engine) as session:
        deployment = session.get(Deployment, deployment_id)
        if deployment is None or not _wanted(deployment):
            return
        target = deployment.target
        revision = session.get(Revision, (deployment_id, target))
        base_model = revision.base_model if revision else deployment.base_model
    try:
        tell = ProgressRow(_engine, deployment_id)
        _models.publish(base_model, _models.fetch(base_model, tell), tell)
        event, reason = Event.ARTEFACTS_READY, "base model is in the store"
    except ModelBusy:  # another task fetches it; the scaler asks again
        return
    except ModelUnavailable as missing:
        event, reason = Event.ARTEFACTS_FAILED, str(missing)
    except Exception as failed:  # whatever it is, the owner of the deployment must read it
        log.exception("%s could not be fetched", base_model)
        event, reason = Event.ARTEFACTS_FAILED, f"{type(failed).__name__}: {failed}"
    _settle(deployment_id, target, event, reason)
    _redis.publish(WAKE_CHANNEL, deployment_id)


@app.task
def store_models() -> None:
    """Into the bucket what deployments need and it lacks: of before there was one, lost since."""
    with Session(_engine) as session:
        needed = needed_models(session)
    for name in sorted(needed):
        folder = None if is_path(name) else _models.find(name)
        try:
            if folder is not None:
                _models.publish(name, folder, lambda doing, progress: None)
        except OSError as failed:
            log.warning("%s could not be stored: %s", name, failed)


def _wanted(deployment: Deployment) -> bool:
    behind = deployment.prepared < deployment.target and deployment.status in ADMITTING
    return deployment.status == Status.PENDING or behind


def _settle(deployment_id: str, target: int, event: Event, reason: str) -> None:
    """Row and status together, if the target is still the one that was fetched: a change that came
    meanwhile is fetched next."""
    with Session(_engine) as session:
        deployment = session.get_one(Deployment, deployment_id)
        while _wanted(deployment) and deployment.target == target:
            also: dict[str, object] = {"progress": None}
            why = reason
            if event is Event.ARTEFACTS_READY:
                also |= {"prepared": target, "failed_starts": 0, "retry_at": None}
            elif deployment.status != Status.PENDING:  # what it was before can start
                why = f"The change was taken back: {reason}"
                also["target"] = deployment.revision
            where = {"target": target}
            if lifecycle.apply(
                session, deployment, event, actor="task", reason=why, also=also, where=where
            ):
                log.info("%s: %s", deployment.name, why)
                return
            session.refresh(deployment)
