"""Where an adapter is: on which replicas, in which tier, or why it could not be loaded.

Told by the replicas themselves, each second; what is not there says nothing.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Literal

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlmodel import Session

from api.requests.resolve import usable_by
from api.state import State
from loraplex.entities import Deployment
from loraplex.messages import AdapterTiers

Tier = Literal["slot", "memory", "loading", "failed"]


class AdapterState(StrEnum):
    REGISTERED = "registered"  # on no replica
    LOADING = "loading"
    RESIDENT = "resident"  # on one at least
    FAILED = "failed"  # where it was tried


class Place(BaseModel):
    """`slot`: ready to run; `memory`: beside it; `reason`: why it failed there."""

    deployment: str
    replica: str
    tier: Tier
    reason: str = ""


def state_of(places: Sequence[Place]) -> AdapterState:
    tiers = {place.tier for place in places}
    if tiers & {"slot", "memory"}:
        return AdapterState.RESIDENT
    if "loading" in tiers:
        return AdapterState.LOADING
    return AdapterState.FAILED if tiers else AdapterState.REGISTERED


def places(told: Iterable[tuple[Deployment, Sequence[AdapterTiers]]]) -> dict[str, list[Place]]:
    """By digest. Pure."""
    found: dict[str, list[Place]] = {}
    for deployment, replicas in told:
        for each in replicas:
            tiers: tuple[tuple[Tier, Iterable[str]], ...] = (
                ("slot", each.slots),
                ("memory", each.memory),
                ("loading", each.loading),
                ("failed", each.failed),
            )
            seen: set[str] = set()
            for tier, digests in tiers:
                for digest in digests:
                    if digest in seen:  # loading again what has failed before, say
                        continue
                    seen.add(digest)
                    reason = each.failed[digest] if tier == "failed" else ""
                    of = {"deployment": deployment.name, "replica": each.replica}
                    found.setdefault(digest, []).append(Place(**of, tier=tier, reason=reason))
    return found


async def told_by_replicas(
    state: State, tenant: str
) -> list[tuple[Deployment, Sequence[AdapterTiers]]]:
    """Of all deployments that a tenant may use."""

    def usable() -> list[Deployment]:
        with Session(state.database, expire_on_commit=False) as session:
            return usable_by(session, tenant)

    deployments = await run_in_threadpool(usable)
    tiers = await state.broker.tiers([deployment.lane for deployment in deployments])
    return list(zip(deployments, tiers, strict=True))
