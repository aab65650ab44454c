"""/api/v1/system: the processes that make up the platform, its Redis, and who has which place."""

import time
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlmodel import Session, select

from api.security import Operator
from api.state import State, StateDep
from loraplex import __version__
from loraplex.broker.connection import server_version
from loraplex.entities import Deployment, Replica, TrainingJob
from loraplex.metrics.target import FORGOTTEN_AFTER_S
from loraplex.replica_state import ReplicaState

router = APIRouter(tags=["system"])


class ProcessOut(BaseModel):
    kind: str  # api, scaler, tasks or replica
    replica: str
    metrics: str  # host:port
    seen_s: float  # ago


class RedisOut(BaseModel):
    version: str
    memory: int  # bytes
    memory_most: int  # 0: no bound
    clients: int
    commands_per_s: int
    policy: str
    persistent: bool
    uptime_s: int


class PlaceOut(BaseModel):
    """Of the fleet: what runs there."""

    host: str
    slot: int
    kind: str  # replica or training
    id: str
    deployment: str
    state: str
    since: datetime


class SystemOut(BaseModel):
    version: str
    database: str  # its kind
    leader: str  # scaler that leads
    processes: list[ProcessOut]
    redis: RedisOut
    places: list[PlaceOut]


@router.get("/system")
async def system(_: Operator, state: StateDep) -> SystemOut:
    """For whoever runs the platform."""
    now = time.time()
    targets = await state.broker.targets(now - FORGOTTEN_AFTER_S)
    leader, info = await state.broker.about()
    return SystemOut(
        version=__version__,
        database=state.database.dialect.name,
        leader=leader,
        processes=[
            ProcessOut(
                kind=each.process,
                replica=each.replica,
                metrics=each.address,
                seen_s=round(max(0.0, now - each.at), 1),
            )
            for each in sorted(targets, key=lambda each: (each.process, each.replica))
        ],
        redis=_redis(info),
        places=await run_in_threadpool(_places, state),
    )


def _redis(info: dict[str, Any]) -> RedisOut:
    return RedisOut(
        version=server_version(info),
        memory=info["used_memory"],
        memory_most=info["maxmemory"],
        clients=info["connected_clients"],
        commands_per_s=info["instantaneous_ops_per_sec"],
        policy=info["maxmemory_policy"],
        persistent=bool(info["aof_enabled"]),
        uptime_s=info["uptime_in_seconds"],
    )


def _places(state: State) -> list[PlaceOut]:
    with Session(state.database) as session:
        replicas = session.exec(
            select(Replica, Deployment.name)
            .where(Replica.deployment_id == Deployment.id)
            .where(Replica.state != ReplicaState.GONE)
        ).all()
        jobs = session.exec(select(TrainingJob).where(TrainingJob.host != "")).all()
        found = [
            PlaceOut(
                host=row.host,
                slot=row.slot,
                kind="replica",
                id=row.id,
                deployment=name,
                state=row.state,
                since=row.created_at,
            )
            for row, name in replicas
        ]
        found += [
            PlaceOut(
                host=job.host,
                slot=job.slot or 0,
                kind="training",
                id=job.id,
                deployment="",
                state="yielding" if job.yielding else job.state,
                since=job.placed_at or job.created_at,
            )
            for job in jobs
        ]
    return sorted(found, key=lambda each: (each.host, each.slot))
