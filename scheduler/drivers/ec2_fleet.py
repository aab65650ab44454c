"""How one instance is asked for."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from loraplex.ec2_settings import Ec2Pool
from scheduler.drivers.ec2_tags import pairs

FAILURE_KEPT_S = 60  # a start without capacity is asked again after so long at most


def token_of(*what: object) -> str:
    """Of a start: EC2 does what comes twice with it once; it may remember a failure, too."""
    parts = (*what, int(time.time()) // FAILURE_KEPT_S)
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def fleet_of_one(pool: Ec2Pool, named: Mapping[str, str]) -> dict[str, Any]:
    """One instance, of the first type that has room; of spot ones what is least likely to go."""
    overrides = [
        {"InstanceType": kind, "SubnetId": subnet, "Priority": float(priority)}
        for priority, kind in enumerate(pool.types)
        for subnet in pool.subnets
    ]
    template = {"LaunchTemplateId": pool.template, "Version": "$Default"}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": template, "Overrides": overrides}
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": "spot" if pool.spot else "on-demand",
        },
        "SpotOptions": {"AllocationStrategy": "capacity-optimized-prioritized"},
        "OnDemandOptions": {"AllocationStrategy": "prioritized"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": pairs(named)}],
    }
