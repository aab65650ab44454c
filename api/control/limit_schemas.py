"""Limits as they are given and shown: of a plan, and of a deployment."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Most = Annotated[int, Field(ge=1, le=10**9)]


class LimitsBody(BaseModel):
    """Left out or null: no limit. Rates allow a minute's worth at once."""

    model_config = ConfigDict(extra="forbid")
    requests_per_min: Most | None = None
    tokens_per_min: Most | None = None
    tokens_per_day: Most | None = Field(None, description="The day is UTC's.")
    concurrent: Most | None = Field(None, description="Answers that wait or run at once.")
