"""What /api/v1/usage gives."""

from datetime import datetime

from pydantic import BaseModel


class UsageLine(BaseModel):
    """`start`: of the bucket; dimensions that were not asked for are null; adapter "": the base
    model."""

    start: datetime
    tenant: str | None = None
    deployment: str | None = None
    adapter: str | None = None
    key: str | None = None
    status: str | None = None
    requests: int
    answers: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    mean_queue_s: float | None
    mean_first_token_s: float | None
    mean_duration_s: float | None
    replica_s: float
    cost: float


class UsageOut(BaseModel):
    since: datetime
    until: datetime
    data: list[UsageLine]
