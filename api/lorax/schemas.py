"""Request bodies of LoRAX' native API. Its clients send every field, null, false or [] where unset.

Bounds as the client checks them (`lorax-client` 0.6.3). What isn't honoured is refused by name.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.errors import bad_request
from api.openai.schemas import MAX_SCHEMA, MAX_TOKENS
from api.requests.request import GenerationRequest
from api.text import Text
from loraplex.entities import Deployment
from loraplex.store.merging import MajoritySign, Merge, Strategy

BASE_MODEL = "__base_model__"  # LoRAX' adapter_id for none
_MOST_STOPS = 4


def _unset(value: Any) -> Any:
    if value:
        raise ValueError("this isn't supported; leave it out")
    return value


Unset = Annotated[Any, AfterValidator(_unset)]


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    type: Literal["json_object", "json_schema"]
    schema_: dict[str, Any] | None = Field(None, alias="schema")

    def grammar(self) -> tuple[str, str]:
        """Raises ApiError for a schema that is too long."""
        source = json.dumps(self.schema_ or {"type": "object"})
        if len(source) > MAX_SCHEMA:
            raise bad_request(f"The schema has over {MAX_SCHEMA} characters.", "response_format")
        return ("json_schema", source)


class MergedAdapters(BaseModel):
    """`density`: the part of the values that is kept; linear keeps all."""

    model_config = ConfigDict(extra="forbid")
    ids: list[Annotated[Text, Field(min_length=1, max_length=512)]] = Field(
        min_length=1, max_length=16
    )
    weights: list[Annotated[float, Field(ge=-100, le=100)]] | None = None
    merge_strategy: Strategy | None = None
    density: float | None = Field(None, ge=0, le=1)
    majority_sign_method: MajoritySign | None = None

    def ours(self, refs: Mapping[str, str]) -> Merge:
        """`refs`: of adapters that were imported. Raises ApiError."""
        weights = self.weights or [1.0] * len(self.ids)
        if len(weights) != len(self.ids):
            reason = "merged_adapters: as many weights as ids."
            raise bad_request(reason, "merged_adapters.weights")
        strategy = self.merge_strategy or Strategy.LINEAR
        linear = strategy is Strategy.LINEAR
        if not linear and not self.density:
            reason = f"merged_adapters: {strategy} needs a density over 0 (0.5, say)."
            raise bad_request(reason, "merged_adapters.density")
        return Merge(
            adapters=tuple(refs.get(each, each) for each in self.ids),
            weights=tuple(weights),
            strategy=strategy,
            density=1.0 if linear or self.density is None else self.density,
            sign=self.majority_sign_method or MajoritySign.TOTAL,
        )


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    adapter_id: Text | None = Field(None, max_length=512)
    adapter_source: Literal["pbase", "hub", "local", "s3"] | None = None
    merged_adapters: MergedAdapters | None = None
    api_token: str | None = Field(None, max_length=4096, repr=False)  # a hub's, to import from it
    best_of: int | None = Field(None, ge=1, le=128)
    do_sample: bool | None = False
    max_new_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    ignore_eos_token: bool | None = False
    repetition_penalty: float | None = Field(None, ge=0.01, le=10)
    return_full_text: bool | None = False
    stop: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        None, max_length=_MOST_STOPS
    )
    seed: int | None = Field(None, ge=0, lt=2**63)
    temperature: float | None = Field(None, ge=0, le=100)
    top_k: int | None = Field(None, ge=1, lt=2**31)
    top_p: float | None = Field(None, gt=0, le=1)
    typical_p: Unset = None
    truncate: int | None = Field(None, ge=1, le=MAX_TOKENS)
    watermark: Unset = False
    details: bool | None = False
    decoder_input_details: bool | None = False
    return_k_alternatives: int | None = Field(None, ge=1, le=20)
    response_format: ResponseFormat | None = None

    @property
    def samples(self) -> bool:
        """LoRAX samples as soon as one of these is given."""
        if self.temperature == 0:
            return False
        return bool(self.do_sample or self.temperature or self.top_k or self.top_p)


class GenerateRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inputs: Text = Field(min_length=1)
    parameters: Parameters = Field(default_factory=Parameters)
    stream: bool | None = False

    def outside(self, base_model: str) -> list[str]:
        """Adapters that are named by where they come from, not as they are registered."""
        given = self.parameters
        if given.adapter_source in (None, "pbase"):
            return []
        ids = given.merged_adapters.ids if given.merged_adapters else [given.adapter_id or ""]
        return [each for each in ids if each not in ("", BASE_MODEL, base_model)]

    def generation(
        self, deployment: Deployment, refs: Mapping[str, str], *, streamed: bool
    ) -> GenerationRequest:
        """`refs`: as which adapters from outside are registered. Raises ApiError for what can't be
        honoured together."""
        given = self.parameters
        best_of = given.best_of or 1
        if best_of > 1 and (streamed or given.seed is not None or not given.samples):
            reason = "best_of over 1 is for sampling, without seed and without stream."
            raise bad_request(reason, "best_of")
        if streamed and given.decoder_input_details:
            reason = "A stream has no details of the prompt."
            raise bad_request(reason, "decoder_input_details")
        base = (None, "", BASE_MODEL, deployment.base_model)
        adapter = given.adapter_id if given.adapter_id not in base else None
        merged = given.merged_adapters
        if adapter and merged:
            reason = "adapter_id and merged_adapters exclude each other."
            raise bad_request(reason, "merged_adapters")
        adapter = refs.get(adapter, adapter) if adapter else None
        return GenerationRequest(
            surface="lorax",
            streamed=streamed,
            model=f"{deployment.name}:{adapter}" if adapter else deployment.name,
            merge=merged.ours(refs) if merged else None,
            prompts=[self.inputs],
            n=best_of,
            best=1,
            max_tokens=given.max_new_tokens,
            temperature=(given.temperature or 1.0) if given.samples else 0.0,
            top_p=given.top_p or 1.0,
            top_k=given.top_k or 0,
            seed=given.seed,
            stop=given.stop or [],
            ignore_eos=bool(given.ignore_eos_token),
            repetition_penalty=given.repetition_penalty or 1.0,
            grammar=given.response_format.grammar() if given.response_format else None,
            echo=bool(given.return_full_text),
            truncate=given.truncate,
            logprobs=given.return_k_alternatives or 0,
            logprobs_shown=bool(given.details or given.decoder_input_details),
            prompt_logprobs=0 if given.decoder_input_details else None,
        )
