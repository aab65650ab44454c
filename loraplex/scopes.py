"""What an API key may be used for."""

from enum import StrEnum


class Scope(StrEnum):
    INFERENCE = "inference"  # send requests, see what they may be sent to, read their answers
    DEPLOYMENTS = "deployments"  # make, change, stop and delete deployments; their dead letters
    ADAPTERS = "adapters"  # register and delete adapters
    ADMIN = "admin"  # all of that, and the tenant's keys
