"""What goes into the engine and what comes out. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Finish = Literal["stop", "length", "cancelled", "error"]


class EngineError(Exception):
    """A request that the engine can't run; the text says why, `code` is for programs."""

    code = "invalid_request"


class InvalidRequest(EngineError):
    """Token ids that the model doesn't have, or a sampling parameter out of its range."""


class TooLong(EngineError):
    code = "context_length_exceeded"


class AdapterRefused(EngineError):
    """LoRA weights that this engine or this base model can't apply."""

    code = "adapter_refused"


class GrammarRefused(EngineError):
    """A schema, regex or grammar that can't constrain the output."""

    code = "grammar_refused"


class ModelRefused(Exception):
    """A base model that can't be loaded or isn't computed correctly here. Never transient."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the output must match: a JSON schema, a regular expression or a Lark grammar."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. The seed and the position alone fix the random number.

    temperature 0 is greedy; top_k 0 keeps all. `repetition_penalty` (arXiv:1909.05858) looks at
    prompt and output, the other two at the output, as vLLM and OpenAI have it. `logprobs`: how many
    alternatives to report beside the chosen token, None reports nothing; `prompt_logprobs`: the
    same for the prompt's tokens, at the price of the prefix cache and of logits for every row.
    """

    max_tokens: int
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_ids: tuple[int, ...] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    pooling: str | None = None  # "mean" or "last": an embedding of the prompt is wanted


@dataclass(frozen=True, slots=True)
class Request:
    """`produced` holds tokens that another replica has already generated: they are not repeated.

    `tenant` is whose fair share it uses, and whose prefixes it may share. `background`: it runs
    where nobody else wants to, and gives way.
    """

    id: str
    prompt: list[int]
    sampling: Sampling
    adapter: str | None = None
    produced: list[int] = field(default_factory=list)
    tenant: str = ""
    background: bool = False


class TokenLogprobs(NamedTuple):
    """Log-probability of the chosen token, and the likeliest ones with theirs."""

    chosen: float
    top: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Output:
    """New tokens of one request; `position` is the output index of the first."""

    request: str
    position: int
    tokens: list[int]
    finish: Finish | None = None
    logprobs: list[TokenLogprobs] | None = None
    error: EngineError | None = None  # with finish "error"
    prompt_logprobs: list[TokenLogprobs] | None = None  # with the first token; from prompt[1] on
    cached: int = 0  # of the prompt's tokens, were in the cache; with the first token
    embedding: bytes | None = None  # with the first token; float32, little-endian
    admitted: float = 0.0  # with the first token: when it first ran, monotonic seconds
