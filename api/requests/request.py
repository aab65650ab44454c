"""What every surface translates its requests to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from api.requests.tool_families import ToolUse
from loraplex.messages import Surface
from loraplex.store.merging import Merge

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]  # text, token ids or chat messages


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What every surface translates to: `n` answers to each of the prompts.

    `max_tokens` None: as much as the context holds; 0: nothing, only the prompt is looked at.
    """

    model: str
    prompts: Sequence[Prompt]
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    stop_ids: Sequence[int] = ()
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: tuple[str, str] | None = None  # kind (json_schema, regex, lark) and source
    logprobs: int | None = None  # alternatives to report beside each token; None: nothing
    prompt_logprobs: int | None = None  # the same for the prompt's tokens
    truncate: int | None = None  # prompts keep their last tokens only
    pooling: Literal["mean", "last"] | None = None  # embeddings of the prompts are wanted
    suffix: str = ""  # what comes after the answer
    tools: ToolUse | None = None  # functions that the model may call
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    merge: Merge | None = None  # of adapters, by their refs; `model` names the deployment then
    user: str = ""  # gets the same version of an alias each time
    surface: Surface = "chat"
    streamed: bool = False
    include_usage: bool = False
    best: int | None = None  # of the n answers, as many are returned
    echo: bool = False
    logprobs_shown: bool = False
