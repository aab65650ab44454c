"""Who is logged in, as Predibase's SDK asks before anything else."""

import hashlib
import uuid
from typing import Any

from fastapi import APIRouter

from api.security import ForLooking

router = APIRouter(tags=["predibase"])


@router.get("/users/current")
@router.get("/v1/users/current", include_in_schema=False)
def current(tenant: ForLooking) -> dict[str, Any]:
    """`shortCode` becomes a part of the URLs that prompts are sent to."""
    number = int(hashlib.sha256(tenant.encode()).hexdigest()[:7], 16)
    plan = {"id": number, "tier": "self-hosted", "isTrial": False, "active": True}
    plan |= {"expiration": None, "daysRemainingInPlan": None}
    return {
        "id": number,
        "username": tenant,
        "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"loraplex:tenant:{tenant}")),
        "tenant": {"name": tenant, "shortCode": tenant, "subscription": plan},
    }
