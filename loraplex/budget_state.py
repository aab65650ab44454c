"""How a tenant stands to its budget of this month."""

from enum import StrEnum


class BudgetState(StrEnum):
    WITHIN = "within"
    WARNED = "warned"  # told that most of it is used
    EXCEEDED = "exceeded"  # requests are refused, deployments stopped
