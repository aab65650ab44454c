"""Start and stop one replica."""

from sqlmodel import Session

from loraplex.database import connect
from loraplex.entities import Deployment, Replica, ReplicaState
from scheduler.drivers.process import ProcessDriver
from scheduler.tasks.app import app, settings

_engine = connect(settings.database)
_driver = ProcessDriver(settings)


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def start_replica(replica_id: str) -> None:
    """Start it, unless it isn't wanted any more. Safe to run twice: the driver goes by the id."""
    with Session(_engine) as session:
        replica = session.get(Replica, replica_id)
        if replica is None or replica.state != ReplicaState.STARTING:
            return
        deployment = session.get_one(Deployment, replica.deployment_id)
        _driver.start(replica_id, deployment.lane.name)


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def stop_replica(replica_id: str) -> None:
    """End it now, whatever it is doing. Safe to run twice."""
    _driver.stop(replica_id)
