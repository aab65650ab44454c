"""Start and stop one replica. Both go by its row, whoever asks and however late."""

from sqlalchemy import update
from sqlmodel import Session, col

from loraplex.database import connect
from loraplex.entities import Deployment, Replica, Revision
from loraplex.keys import Lane
from loraplex.replica_state import ReplicaState
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.choose import driver_for
from scheduler.tasks.app import app, settings

_engine = connect(settings.database)
_driver = driver_for(settings)


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def start_replica(replica_id: str) -> None:
    """Start it, unless it isn't wanted any more. Safe to run twice: the driver goes by the id."""
    with Session(_engine) as session:
        replica = session.get(Replica, replica_id)
        if replica is None or replica.state != ReplicaState.STARTING:
            return
        spec, told = _spec(session, replica), replica.reason
    try:
        _driver.start(spec)
    except OSError as failed:
        _tell(replica_id, str(failed))
        raise
    if told:
        _tell(replica_id, "")


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def stop_replica(replica_id: str) -> None:
    """End it now, whatever it is doing, unless a row wants it. Safe to run twice."""
    with Session(_engine) as session:
        replica = session.get(Replica, replica_id)
        if replica is not None and replica.state != ReplicaState.GONE:
            return
    _driver.stop(replica_id)


@app.task
def kill_replica(replica_id: str) -> None:
    """For who wants to see what becomes of its requests."""
    _driver.kill(replica_id)


def _tell(replica_id: str, trouble: str) -> None:
    """Why it doesn't start, as long as it should."""
    starting = col(Replica.state) == ReplicaState.STARTING
    wanted = update(Replica).where(col(Replica.id) == replica_id, starting)
    with Session(_engine) as session:
        session.execute(wanted.values(reason=trouble))
        session.commit()


def _spec(session: Session, replica: Replica) -> ReplicaSpec:
    revision = session.get(Revision, (replica.deployment_id, replica.revision))
    deployment = session.get_one(Deployment, replica.deployment_id)
    base_model = revision.base_model if revision else deployment.base_model
    lane = Lane(base_model, deployment.id).name
    engine = revision.engine if revision else {}
    return ReplicaSpec(replica.id, lane, replica.host, replica.slot, engine)
