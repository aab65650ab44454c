"""What tables keep of texts from outside."""

from pathlib import Path

from sqlmodel import Session, select

from loraplex import lifecycle
from loraplex.database import connect, migrate
from loraplex.entities import Deployment, DeploymentEvent, Replica, Tenant
from loraplex.status import Event


def test_no_reason_holds_a_nul_however_it_is_written(tmp_path: Path) -> None:
    """PostgreSQL refuses one, and a model's own error message may hold it."""
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url)
    with Session(connect(url)) as session:
        session.add(Tenant(id="t"))
        session.flush()
        bounds = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1, "scale_up_threshold": 1}
        deployment = Deployment(tenant_id="t", name="d", base_model="m", **bounds)
        session.add(deployment)
        session.flush()
        session.add(Replica(id="rep-1", deployment_id=deployment.id, reason="a\0b"))
        why = {"actor": "scaler", "reason": "a\0b"}
        lifecycle.note(session, deployment, "replica_gone", **why)
        lifecycle.apply(session, deployment, Event.ARTEFACTS_FAILED, **why)
        events = session.exec(select(DeploymentEvent.reason)).all()
        replicas = session.exec(select(Replica.reason)).all()
        assert [*events, *replicas, deployment.reason] == ["ab"] * 4
