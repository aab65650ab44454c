"""Check and fetch what a deployment needs before its first replica can start."""

import logging

from sqlmodel import Session

from loraplex.broker.connection import connect as connect_redis
from loraplex.database import connect
from loraplex.entities import Deployment
from loraplex.keys import WAKE_CHANNEL
from loraplex.lifecycle import apply
from loraplex.status import Event, Status
from loraplex.store.models import ModelStore, ModelUnavailable
from scheduler.tasks.app import app, settings

log = logging.getLogger(__name__)
_engine = connect(settings.database)
_redis = connect_redis(settings.redis_url)
_models = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def prepare_deployment(deployment_id: str) -> None:
    """Pending → Standby, or Errored with the reason. Safe to run twice: the status decides."""
    with Session(_engine) as session:
        deployment = session.get(Deployment, deployment_id)
        if deployment is None or deployment.status != Status.PENDING:
            return
        base_model = deployment.base_model
    try:
        _models.fetch(base_model)
        event, reason = Event.ARTEFACTS_READY, "base model is in the store"
    except ModelUnavailable as missing:
        event, reason = Event.ARTEFACTS_FAILED, str(missing)
    with Session(_engine) as session:
        deployment = session.get_one(Deployment, deployment_id)
        if deployment.status == Status.PENDING:
            apply(session, deployment, event, actor="task", reason=reason)
            log.info("%s: %s", deployment.name, reason)
    _redis.publish(WAKE_CHANNEL, deployment_id)
