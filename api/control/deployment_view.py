"""A deployment as it is seen: its row, its revisions, and, by its owner, what its replicas say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi.concurrency import run_in_threadpool
from sqlmodel import Session, col, select

from api.control.deployment_schemas import DeploymentOut, ReplicaOut, RevisionOut, engine_shown
from api.state import State
from loraplex.entities import Deployment, Revision
from loraplex.messages import ReplicaReport


@dataclass(frozen=True, slots=True)
class Seen:
    deployments: Sequence[Deployment]
    revisions: Mapping[str, Sequence[Revision]]  # by deployment, those that have some
    reports: Mapping[str, Sequence[ReplicaReport]]  # by deployment


async def show(state: State, deployment: Deployment, tenant: str) -> DeploymentOut:
    return (await show_all(state, [deployment], tenant))[0]


async def show_all(
    state: State, deployments: Sequence[Deployment], tenant: str
) -> list[DeploymentOut]:
    return shown(await seen(state, deployments), tenant)


async def seen(state: State, deployments: Sequence[Deployment]) -> Seen:
    """One query and one round trip for all. Raises Unavailable."""
    revisions = await run_in_threadpool(_revisions, state, [d.id for d in deployments])
    lanes = {d.id: {d.lane, *(r.lane for r in revisions.get(d.id, ()))} for d in deployments}
    wanted = [lane for each in lanes.values() for lane in each]
    said = dict(zip(wanted, await state.broker.reports(wanted), strict=True))
    reports = {name: [r for lane in each for r in said[lane]] for name, each in lanes.items()}
    return Seen(deployments, revisions, reports)


def shown(seen: Seen, tenant: str) -> list[DeploymentOut]:
    """Of another tenant's without its replicas: they tell of others' load."""
    return [
        _out(d, seen.revisions.get(d.id, ()), seen.reports[d.id] if d.tenant_id == tenant else ())
        for d in seen.deployments
    ]


def _revisions(state: State, deployments: Sequence[str]) -> dict[str, list[Revision]]:
    """Those of which something is left, by deployment."""
    found: dict[str, list[Revision]] = {}
    with Session(state.database, expire_on_commit=False) as session:
        wanted = select(Revision).where(
            col(Revision.deployment_id).in_(deployments), ~col(Revision.retired)
        )
        for revision in session.exec(wanted):
            found.setdefault(revision.deployment_id, []).append(revision)
    return found


def _out(
    deployment: Deployment, revisions: Sequence[Revision], reports: Sequence[ReplicaReport]
) -> DeploymentOut:
    replicas = [_replica(r) for r in reports if r.phase in ("ready", "draining")]
    by_number = {
        r.number: RevisionOut(
            revision=r.number, base_model=r.base_model, engine=engine_shown(r.engine)
        )
        for r in revisions
    }
    serving, target = by_number.get(deployment.revision), by_number.get(deployment.target)
    fields: dict[str, Any] = deployment.model_dump(include=set(DeploymentOut.model_fields))
    return DeploymentOut(
        **fields,
        engine=serving.engine if serving else {},
        change=target if deployment.target != deployment.revision else None,
        replicas=replicas,
    )


def _replica(report: ReplicaReport) -> ReplicaOut:
    said = msgspec.structs.asdict(report) | msgspec.structs.asdict(report.vitals)
    said["cold_start"] = report.cold_start and msgspec.structs.asdict(report.cold_start)
    said["id"] = report.replica
    return ReplicaOut(**{name: said[name] for name in ReplicaOut.model_fields})
