"""A request's prompts as token ids, and how each of its answers is sampled. What doesn't fit is
refused here."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from msgspec import structs
from tokenizers import Encoding

from api.errors import ApiError, bad_request
from api.requests.infill import Infill, infill_marks
from api.requests.models import ServedModel
from api.requests.request import GenerationRequest, Prompt
from api.requests.template import TIME_LIMIT_S, TemplateRefused, TemplateTooSlow
from api.requests.tool_families import grammar
from loraplex.messages import Sampling

# How surfaces name what the prompt is made of, where that isn't `messages`.
_PROMPTS = {"completion": "prompt", "embedding": "input", "response": "input", "lorax": "inputs"}
_MOST_SCORED = 32768  # prompt tokens whose log-probabilities one answer shows
_CHARACTERS_A_TOKEN = 128  # no vocabulary's mean comes near it


def prepare(
    served: ServedModel, request: GenerationRequest, limit_s: float = TIME_LIMIT_S
) -> tuple[list[list[int]], Callable[[int], Sampling]]:
    """The prompts' ids, and the sampling of each answer. Raises ApiError, and TemplateTooSlow where
    less than TIME_LIMIT_S were not enough."""
    try:
        return _prepare(served, request, limit_s)
    except ApiError as refused:
        if refused.param in ("messages", "prompt") and request.surface in _PROMPTS:
            refused.param = _PROMPTS[request.surface]
        raise


def _prepare(
    served: ServedModel, request: GenerationRequest, limit_s: float
) -> tuple[list[list[int]], Callable[[int], Sampling]]:
    if request.tools is not None:
        request = replace(request, grammar=("lark", _tool_grammar(served, request)))
    infill = _infill(served, request.suffix) if request.suffix else None
    if infill is not None:
        request = replace(request, stop_ids=[*request.stop_ids, *infill.marks.ends])
    cut = request.truncate or 0
    extras = {**request.template_arguments}
    if request.tools is not None:
        extras["tools"] = request.tools.shown
    encode = partial(_encode_prompt, served, limit_s=limit_s, extras=extras)
    prompts = [_tokenize(served, p, infill, cut, encode) for p in request.prompts]
    _bound_scores(request, [len(ids) for ids in prompts])
    seed = request.seed if request.seed is not None else secrets.randbits(63)
    samplings = [_sampling(request, len(ids), served, seed) for ids in prompts]

    def sampling(index: int) -> Sampling:
        prompt, of_it = divmod(index, request.n)
        return structs.replace(
            samplings[prompt],
            # The first answer's seed is the client's; the same seed gives the same n answers.
            seed=(seed + of_it) % 2**63,
            # A prompt is scored once, for all of its answers.
            prompt_logprobs=None if of_it else request.prompt_logprobs,
        )

    return prompts, sampling


def _sampling(request: GenerationRequest, prompt: int, served: ServedModel, seed: int) -> Sampling:
    max_tokens = _max_tokens(prompt, request.max_tokens, served.context_length)
    if request.min_tokens > max_tokens:
        raise bad_request(f"min_tokens is over max_tokens ({max_tokens}).", "min_tokens")
    return Sampling(
        max_tokens=max_tokens,
        seed=seed,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        ignore_eos=request.ignore_eos,
        min_tokens=request.min_tokens,
        stop_ids=list(request.stop_ids),
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=dict(request.logit_bias),
        grammar=request.grammar,
        logprobs=request.logprobs,
        prompt_logprobs=request.prompt_logprobs,
        pooling=request.pooling,
    )


def _infill(served: ServedModel, suffix: str) -> Infill:
    marks = infill_marks(served.tokenizer)
    return Infill(marks, _encode(served, suffix, special=False))


def _tokenize(
    served: ServedModel,
    prompt: Prompt,
    infill: Infill | None,
    truncate: int,
    encode: Callable[[Prompt], list[int]],
) -> list[int]:
    """`truncate`: of a text, as many tokens at its end; 0: all of it."""
    if truncate and isinstance(prompt, str):
        ids = _last_tokens(served, prompt, truncate)
    else:
        ids = encode(prompt)
    return infill.around(served.tokenizer, ids) if infill else ids


def _tool_grammar(served: ServedModel, request: GenerationRequest) -> str:
    assert request.tools is not None
    if served.tools is None:
        message = "This base model's chat template has no tools, or an unknown way to call them."
        raise bad_request(message, "tools", "unsupported_parameter")
    if request.grammar is not None:
        raise bad_request("tools and response_format exclude each other.", "response_format")
    return grammar(served.tools, request.tools, served.tokenizer)


def _encode_prompt(
    served: ServedModel, prompt: Prompt, *, limit_s: float, extras: Mapping[str, Any]
) -> list[int]:
    if isinstance(prompt, str):
        return _encode(served, prompt, special=True)
    if prompt and isinstance(prompt[0], int):
        size = served.tokenizer.get_vocab_size()
        ids = [t for t in prompt if isinstance(t, int) and 0 <= t < size]
        if len(ids) != len(prompt):
            raise bad_request(f"Token ids are integers from 0 to {size - 1}.", "prompt")
        return ids
    if served.template is None:
        raise bad_request("This base model has no chat template: use /v1/completions.", "messages")
    try:
        text = served.template.render(prompt, extras, limit_s=limit_s)  # type: ignore[arg-type]
    except TemplateRefused as refused:
        if isinstance(refused, TemplateTooSlow) and limit_s < TIME_LIMIT_S:
            raise
        raise bad_request(f"The model's chat template refused: {refused}", "messages") from refused
    return _encode(served, text, special=False)


def _encode(served: ServedModel, text: str, *, special: bool) -> list[int]:
    return list(encoding(served, text, special=special).ids)


def encoding(served: ServedModel, text: str, *, special: bool) -> Encoding:
    """A text's tokens, with special ones around them if asked. Raises ApiError."""
    if len(text) > _CHARACTERS_A_TOKEN * served.context_length:  # not worth tokenizing
        raise _too_long(f"the prompt has {len(text)} characters.", served.context_length)
    try:
        text.encode()
    except UnicodeEncodeError as broken:  # half of a surrogate pair, which JSON can spell
        raise bad_request(f"The text is not valid Unicode: {broken.reason}.") from broken
    return served.tokenizer.encode(text, add_special_tokens=special)


def _last_tokens(served: ServedModel, text: str, count: int) -> list[int]:
    """Of a text, with the special tokens around them that a whole one has."""
    found = encoding(served, text, special=False)
    found.truncate(count, direction="left")
    return list(served.tokenizer.post_process(found, add_special_tokens=True).ids)


def _bound_scores(request: GenerationRequest, lengths: Sequence[int]) -> None:
    tokens = request.n * sum(lengths)
    if request.prompt_logprobs is not None and tokens > _MOST_SCORED:
        reason = f"echo with logprobs shows at most {_MOST_SCORED} prompt tokens; here are {tokens}"
        raise bad_request(f"{reason}, n (or best_of) counted. Send fewer prompts at once.", "echo")


def _max_tokens(prompt: int, asked: int | None, context: int) -> int:
    if prompt == 0:
        raise bad_request("The prompt is empty.", "prompt")
    if prompt + (asked or 1) > context:
        limit = f" and max_tokens is {asked}." if asked else "."
        raise _too_long(f"the prompt has {prompt}{limit}", context)
    if asked is None:
        return context - prompt
    return max(1, asked)  # of 0 tokens nothing would be heard


def _too_long(why: str, context: int) -> ApiError:
    message = f"This model's context is {context} tokens; {why}"
    return ApiError(400, "context_length_exceeded", message, param="messages")
