"""What goes into the engine and what comes out. No torch."""

from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "cancelled"]


class EngineError(Exception):
    """A request that the engine can't run; the text says why, `code` is for programs."""

    code = "invalid_request"


class TooLong(EngineError):
    code = "context_length_exceeded"


class AdapterRefused(EngineError):
    """LoRA weights that this engine or this base model can't apply."""

    code = "adapter_refused"


class ModelRefused(Exception):
    """A base model that can't be loaded or isn't computed correctly here. Never transient."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 keeps all; seed and position alone fix the random number."""

    max_tokens: int
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """`produced` holds tokens that another replica has already generated: they are not repeated."""

    id: str
    prompt: list[int]
    sampling: Sampling
    adapter: str | None = None
    produced: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens of one request; `position` is the output index of the first."""

    request: str
    position: int
    tokens: list[int]
    finish: Finish | None = None
