"""What a fine-tuning job may be told, whatever the surface."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.text import Text

LEARNING_RATE = 2e-4

Module = Annotated[Text, Field(min_length=1, max_length=128)]


class TrainingSettings(BaseModel):
    """`max_steps` wins over `epochs`. `target_modules` unset: all linear layers but the head.
    `validation_split`: that part of the rows, where there is no file for it."""

    model_config = ConfigDict(extra="forbid")
    rank: int = Field(16, ge=1, le=256)
    alpha: int | None = Field(None, ge=1, le=4096, description="Unset: twice the rank.")
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: list[Module] | None = Field(None, min_length=1, max_length=64)
    epochs: float = Field(3.0, gt=0, le=1000)
    max_steps: int | None = Field(None, ge=1, le=1_000_000)
    batch_size: int = Field(8, ge=1, le=1024, description="Rows that a step learns from.")
    gradient_accumulation_steps: int | None = Field(
        None, ge=1, le=1024, description="Parts that a step's rows are computed in; a divisor."
    )
    packing: bool = Field(False, description="Rows lie one after another, without padding.")
    learning_rate: float = Field(LEARNING_RATE, gt=0, le=1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    max_length: int = Field(1024, ge=8, le=8192, description="Tokens; longer rows are cut.")
    validation_split: float = Field(0.0, ge=0, lt=1)
    early_stopping: int | None = Field(
        None, ge=1, le=1000, description="Evaluations (one an epoch) without a gain."
    )
    checkpoints: int = Field(
        3,
        ge=0,
        le=100,
        description="The last epochs whose adapters are kept beside the end.",
    )
    as_chat: bool = Field(
        False, description="Prompt and completion are said by the user and the assistant."
    )
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _parts_are_whole(self) -> "TrainingSettings":
        if self.batch_size % (self.gradient_accumulation_steps or 1):
            raise ValueError("gradient_accumulation_steps must divide batch_size.")
        return self

    def for_the_program(self) -> dict[str, Any]:
        given = self.model_dump(exclude={"alpha", "target_modules"})
        return given | {
            "alpha": self.alpha or 2 * self.rank,
            "target_modules": self.target_modules or [],
        }
