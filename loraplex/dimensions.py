"""By what usage may be told apart."""

from enum import StrEnum


class Dimension(StrEnum):
    TENANT = "tenant"
    DEPLOYMENT = "deployment"
    ADAPTER = "adapter"
    KEY = "key"
    STATUS = "status"
