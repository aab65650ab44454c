"""What /api/v1/deployments takes and gives."""

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.control.limit_schemas import LimitsBody
from api.text import Text
from loraplex.schedule import DAYS

_PREFIX, PRELOAD = "LORAPLEX_", "LORAPLEX_PRELOAD"
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
assert get_args(Day) == DAYS


class Schedule(BaseModel):
    """Hours with another `min_replicas`; an `end` before the `start` is on the next day."""

    model_config = ConfigDict(extra="forbid")
    min_replicas: int = Field(ge=0, le=64)
    days: list[Day] = Field(list(get_args(Day)), min_length=1, max_length=7)
    start: str = Field(description="HH:MM, included.")
    end: str = Field(description="HH:MM, not included.")
    timezone: str = "UTC"

    @field_validator("start", "end")
    @classmethod
    def _clock(cls, text: str) -> str:
        if not _CLOCK.fullmatch(text):
            raise ValueError(f"{text!r} is no time from 00:00 to 23:59 (midnight is 00:00)")
        return text

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"{name!r} is no IANA time zone, such as Europe/Berlin")
        return ZoneInfo(name).key


MOST_PRELOADED = 1024
PreloadedRef = Annotated[Text, Field(min_length=1, max_length=128)]


class EngineSettings(BaseModel):
    """Of a deployment's replicas, over the platform's own; a change needs new replicas."""

    model_config = ConfigDict(extra="forbid")
    device: str | None = Field(None, pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    max_running: int | None = Field(None, ge=1, le=1024)
    max_step_tokens: int | None = Field(None, ge=16, le=65536)
    kv_cache_gib: float | None = Field(None, gt=0, le=4096)
    max_adapters: int | None = Field(None, ge=1, le=4096)
    deterministic: bool | None = None
    threads: int | None = Field(None, ge=1, le=1024)
    preload: list[PreloadedRef] | None = Field(
        None,
        max_length=MOST_PRELOADED,
        description="Adapters that each replica loads at once and keeps.",
    )

    @field_validator("preload", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """`a/1, b/2`, as it is shown and as the command line has it."""
        return [r.strip() for r in given.split(",")] if isinstance(given, str) else given

    def environment(self, digests: Mapping[str, str]) -> dict[str, str]:
        """As the replica's settings read it. `digests`: of the adapters to preload, by ref."""
        given = self.model_dump(exclude_none=True, exclude={"preload"})
        found = {f"{_PREFIX}{name.upper()}": str(value) for name, value in given.items()}
        return found | ({PRELOAD: json.dumps(digests)} if digests else {})


def engine_shown(environment: Mapping[str, str]) -> dict[str, str]:
    named = dict(environment)
    if PRELOAD in named:
        named[PRELOAD] = ", ".join(json.loads(named[PRELOAD]))
    return {name.removeprefix(_PREFIX).lower(): value for name, value in named.items()}


Replicas = Annotated[int, Field(ge=0, le=64)]
Seconds = Annotated[int, Field(ge=0, le=7 * 86400)]


Description = Annotated[Text, Field(max_length=1024)]


class DeploymentCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    description: Description = ""
    base_model: str = Field(min_length=1, max_length=512)
    min_replicas: Replicas = 0
    max_replicas: int = Field(1, ge=1, le=64)
    cooldown_time: Seconds = Field(3600, description="No idle replica is kept for longer.")
    scale_up_threshold: int = Field(16, ge=1, le=4096, description="Queued + running per replica.")
    target_wait_s: float = Field(10.0, ge=0.1, le=3600, description="A request's longest wait.")
    cold_start_weight: float = Field(
        3.0, ge=0, le=1000, description="Idle seconds that a second of a cold start is worth."
    )
    schedules: list[Schedule] = Field(default_factory=list, max_length=32)
    priority: int = Field(0, ge=-100, le=100, description="Who yields on a full fleet: the lower.")
    engine: EngineSettings = Field(default_factory=EngineSettings)
    shared: bool = Field(False, description="Every tenant may query it; operators make such ones.")
    capture: float = Field(
        0.0, ge=0, le=1, description="Share of its owner's requests that is kept with the answers."
    )
    limits: LimitsBody = Field(
        default_factory=LimitsBody, description="What each tenant may ask of it."
    )


class DeploymentPatch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    description: Description | None = None
    base_model: str | None = Field(None, min_length=1, max_length=512)
    min_replicas: Replicas | None = None
    max_replicas: int | None = Field(None, ge=1, le=64)
    cooldown_time: Seconds | None = None
    scale_up_threshold: int | None = Field(None, ge=1, le=4096)
    target_wait_s: float | None = Field(None, ge=0.1, le=3600)
    cold_start_weight: float | None = Field(None, ge=0, le=1000)
    schedules: list[Schedule] | None = Field(None, max_length=32)
    priority: int | None = Field(None, ge=-100, le=100)
    engine: EngineSettings | None = Field(None, description="Replaces all of the engine settings.")
    shared: bool | None = None
    capture: float | None = Field(None, ge=0, le=1)
    limits: LimitsBody | None = Field(None, description="Replaces all of the limits.")


class ReplicaOut(BaseModel):
    id: str
    phase: str
    running: int
    requests_done: int
    tokens_per_s: float
    steps: int
    mixed_steps: int
    most_adapters_in_step: int
    adapters: list[str]
    ready_after_s: float
    cold_start: dict[str, float] | None
    capacity: int  # requests at once
    generated: int  # tokens, since it began
    prompt: int
    cached: int  # of the prompts' tokens
    kv_used: float
    device: str  # cuda or cpu
    utilization: float
    memory: int  # bytes


class RevisionOut(BaseModel):
    """What replicas are made of."""

    revision: int
    base_model: str
    engine: dict[str, str]


class DeploymentOut(BaseModel):
    """`base_model` and `engine` are what serves; `change` is what it goes over to. Another tenant's
    (it is shared) shows no replicas."""

    name: str
    description: str
    base_model: str
    status: str
    reason: str
    progress: float | None
    min_replicas: int
    max_replicas: int
    cooldown_time: int
    scale_up_threshold: int
    target_wait_s: float
    cold_start_weight: float
    schedules: list[Schedule]
    priority: int
    shared: bool
    capture: float
    limits: LimitsBody
    engine: dict[str, str]
    revision: int
    change: RevisionOut | None
    created_at: datetime
    changed_at: datetime
    replicas: list[ReplicaOut]


class EventOut(BaseModel):
    id: int
    at: datetime
    kind: str
    actor: str
    from_status: str
    to_status: str
    reason: str
    inputs: dict[str, float] | None


class ReplicaRowOut(BaseModel):
    id: str
    state: str
    reason: str
    revision: int
    host: str
    slot: int
    created_at: datetime
    ready_at: datetime | None
    gone_at: datetime | None


class ExplanationOut(BaseModel):
    """The scaler's latest decision; `decided_at` null: it has not looked yet."""

    name: str
    status: str
    reason: str
    decided_at: datetime | None
    wanted: int | None
    allowed: int | None
    has: int | None
    why: str
    inputs: dict[str, float]
    would_change: list[str]
    last_decisions: list[EventOut]


class LawOut(BaseModel):
    law: str
    replica_seconds: float
    starts: int
    wait_p50_s: float
    wait_p95_s: float
    within_target: float


class ComparisonOut(BaseModel):
    """The deployment's own law first, then others with their documented defaults."""

    at: datetime
    requests: int
    seconds: float
    slots: int
    cold_start_s: float
    target_wait_s: float
    laws: list[LawOut]
