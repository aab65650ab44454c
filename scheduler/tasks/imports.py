"""Check and fetch what a deployment needs before its first replica can start."""

import logging

from celery import Task
from sqlmodel import Session

from loraplex.broker.connection import connect as connect_redis
from loraplex.database import connect
from loraplex.entities import Deployment
from loraplex.keys import WAKE_CHANNEL
from loraplex.lifecycle import apply
from loraplex.status import Event, Status
from loraplex.store.models import ModelBusy, ModelStore, ModelUnavailable
from scheduler.tasks.app import app, settings

log = logging.getLogger(__name__)
_engine = connect(settings.database)
_redis = connect_redis(settings.redis_url)
_models = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)


@app.task(bind=True, max_retries=None)
def prepare_deployment(self: Task, deployment_id: str) -> None:
    """Pending → Standby, or Errored with the reason. Safe to run twice: the status decides."""
    with Session(_engine) as session:
        deployment = session.get(Deployment, deployment_id)
        if deployment is None or deployment.status != Status.PENDING:
            return
        base_model = deployment.base_model
    try:
        _models.fetch(base_model)
        event, reason = Event.ARTEFACTS_READY, "base model is in the store"
    except ModelBusy as busy:  # another task fetches it: don't hold a thread for that
        raise self.retry(exc=busy, countdown=5) from busy
    except ModelUnavailable as missing:
        event, reason = Event.ARTEFACTS_FAILED, str(missing)
    except Exception as failed:  # whatever it is, the owner of the deployment must read it
        log.exception("%s could not be fetched", base_model)
        event, reason = Event.ARTEFACTS_FAILED, f"{type(failed).__name__}: {failed}"
    with Session(_engine) as session:
        deployment = session.get_one(Deployment, deployment_id)
        if deployment.status == Status.PENDING:
            apply(session, deployment, event, actor="task", reason=reason)
            log.info("%s: %s", deployment.name, reason)
    _redis.publish(WAKE_CHANNEL, deployment_id)
