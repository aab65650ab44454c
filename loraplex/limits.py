"""How much a tenant may ask for: over all that it uses (its plan), and of one deployment.

Rates are enforced by GCRA (ITU-T I.371): a bucket of a minute's worth, refilled evenly. The day is
UTC's. `broker/scripts/reserve.lua` decides; here is what it is asked and what it says.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

Kind = Literal["requests", "tokens", "day", "concurrent"]


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    tokens_per_day: int | None = None
    concurrent: int | None = None  # answers that wait or run at once

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) is not None for each in fields(self))


@dataclass(frozen=True, slots=True)
class Scope:
    """What limits hold for: "" is all that a tenant uses, else a deployment's id."""

    of: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left of a minute's worth, and in how many seconds it will be full."""

    limit: int
    remaining: int
    reset_s: float

    @property
    def part(self) -> float:
        return self.remaining / self.limit


@dataclass(frozen=True, slots=True)
class Standing:
    """After a reservation, or a refusal: of the scopes' buckets the emptiest. None: no limit."""

    requests: Bucket | None = None
    tokens: Bucket | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    scope: Scope
    kind: Kind
    wait_s: float  # until the same may be asked again; infinite: never
    standing: Standing

    @property
    def limit(self) -> int:
        limits = self.scope.limits
        found = {
            "requests": limits.requests_per_min,
            "tokens": limits.tokens_per_min,
            "day": limits.tokens_per_day,
            "concurrent": limits.concurrent,
        }[self.kind]
        assert found is not None
        return found

    @property
    def never(self) -> bool:
        return math.isinf(self.wait_s)


@dataclass(frozen=True, slots=True)
class StorageLimit:
    """Of a tenant. `gib` None: what the disk holds. Files of deleted adapters lie for `kept_s`, and
    count."""

    gib: float | None
    kept_s: float
