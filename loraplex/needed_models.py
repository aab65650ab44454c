"""Base models that must stay on the disk."""

from sqlmodel import Session, col, select

from loraplex.entities import UNFINISHED, Deployment, Revision, TrainingJob
from loraplex.status import Status


def needed_models(session: Session) -> set[str]:
    """Of deployments that aren't deleted, whatever else they are, with what they are changed from
    and to; and of trainings."""
    live = select(Deployment.id).where(Deployment.status != Status.DELETED)
    revisions = select(Revision.base_model).where(
        col(Revision.deployment_id).in_(live), ~col(Revision.retired)
    )
    named = select(Deployment.base_model).where(Deployment.status != Status.DELETED)
    unfinished = select(TrainingJob.base_model).where(col(TrainingJob.state).in_(UNFINISHED))
    return {*session.exec(revisions), *session.exec(named), *session.exec(unfinished)}
