"""The only code that changes a deployment's status: look in the table, write, store the event."""

from collections.abc import Mapping

from sqlalchemy import update
from sqlmodel import Session, col

from loraplex.compare_and_set import changed
from loraplex.entities import Deployment, DeploymentEvent, utc_now
from loraplex.status import Event, Status, next_status


def apply(
    session: Session,
    deployment: Deployment,
    event: Event,
    *,
    actor: str,
    reason: str,
    also: Mapping[str, object] | None = None,
    where: Mapping[str, object] | None = None,
) -> Status | None:
    """Move `deployment` by `event` and store why; `also`: columns that change with it; `where`:
    columns that must be so. Commits.

    Returns the new status, or None when the table has no such move or another process moved the
    deployment first (compare and set on the status that the caller saw): nothing is written then.
    """
    before = Status(deployment.status)
    after = next_status(before, event)
    if after is None:
        return None
    move = (
        update(Deployment)
        .where(col(Deployment.id) == deployment.id, col(Deployment.status) == before.value)
        .where(*(getattr(Deployment, name) == value for name, value in (where or {}).items()))
        .values(status=after.value, reason=reason, changed_at=utc_now(), **(also or {}))
    )
    if not changed(session, move):
        session.rollback()
        return None
    session.add(_event(deployment, event.value, actor, before, after, reason))
    session.commit()
    session.refresh(deployment)
    return after


def demand(
    session: Session,
    deployment: Deployment,
    event: Event,
    *,
    actor: str,
    reason: str,
    also: Mapping[str, object] | None = None,
) -> Status | None:
    """`apply` for a user's word, which doesn't yield to a process that moves the deployment at the
    same moment: it is tried again from the new status. None: the table has no such move."""
    while True:
        after = apply(session, deployment, event, actor=actor, reason=reason, also=also)
        if after is not None:
            return after
        session.refresh(deployment)
        if next_status(Status(deployment.status), event) is None:
            return None


def note(
    session: Session,
    deployment: Deployment,
    kind: str,
    *,
    actor: str,
    reason: str,
    inputs: Mapping[str, float] | None = None,
) -> None:
    """Store something that happened without a change of status (a scaling decision). Commits."""
    status = Status(deployment.status)
    event = _event(deployment, kind, actor, status, status, reason)
    event.inputs = dict(inputs) if inputs else None
    session.add(event)
    session.commit()
    session.refresh(deployment)


def _event(
    deployment: Deployment, kind: str, actor: str, before: Status, after: Status, reason: str
) -> DeploymentEvent:
    return DeploymentEvent(
        deployment_id=deployment.id,
        kind=kind,
        actor=actor,
        from_status=before.value,
        to_status=after.value,
        reason=reason,
    )
