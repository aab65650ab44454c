"""One request, whatever its surface, up to the queue: what is wrong is answered here."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi.concurrency import run_in_threadpool
from msgspec import structs
from sqlmodel import Session

from api.errors import ApiError, bad_request, redis_away
from api.requests.infill import Infill, infill_marks
from api.requests.inflight import Inflight, Waiting
from api.requests.models import ServedModel
from api.requests.resolve import Target, resolve
from api.requests.template import TemplateRefused
from api.state import State
from loraplex.broker.interface import BacklogFull, GateShut
from loraplex.messages import Job, Sampling
from loraplex.status import ADMITTING, Status

_MOST_SCORED = 32768  # prompt tokens whose log-probabilities one answer shows
_CHARACTERS_A_TOKEN = 128  # no vocabulary's mean comes near it
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
    suffix: str = ""  # what comes after the answer


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to one prompt, in the queue."""

    served: ServedModel
    stop: Sequence[str]
    waiting: Waiting
    prompt: list[int]
    deadline: float
    silent: bool = False  # its one token is not wanted
    scored: bool = False  # log-probabilities of the prompt are


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request in the queue. Its answers are in the order of its prompts."""

    id: str
    request: GenerationRequest
    served: ServedModel
    answers: list[Generation]
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt_tokens(self) -> int:
        return sum(len(answer.prompt) for answer in self.answers[:: self.request.n])

    def leave(self, inflight: Inflight) -> None:
        """The client has gone, or has all it needs."""
        for answer in self.answers:
            inflight.leave(answer.waiting)


async def admit(state: State, tenant: str, request_id: str, request: GenerationRequest) -> Admitted:
    """Resolve, tokenize, check, enqueue: all of its answers or none. Raises ApiError."""
    target, served = await run_in_threadpool(_prepare, state, tenant, request)
    seed = request.seed if request.seed is not None else secrets.randbits(63)
    samplings = []
    infill = None
    if request.suffix:
        infill = await run_in_threadpool(_infill, served, request.suffix)
        request = replace(request, stop_ids=[*request.stop_ids, *infill.ends])
    for prompt in request.prompts:
        ids = await run_in_threadpool(_tokenize, served, prompt, infill)
        samplings.append((ids, _sampling(request, len(ids), served, seed)))
    _bound_scores(request, [len(ids) for ids, _ in samplings])
    admitted = Admitted(request_id, request, served, [])
    try:
        for index in range(request.n * len(request.prompts)):
            ids, sampling = samplings[index // request.n]
            # The first answer's seed is the client's; the same seed gives the same n answers.
            sampling = structs.replace(
                sampling,
                seed=(seed + index % request.n) % 2**63,
                # A prompt is scored once, for all of its answers.
                prompt_logprobs=None if index % request.n else request.prompt_logprobs,
            )
            job = Job(
                request=f"{request_id}.{index}" if index else request_id,
                reply_to=state.broker.api_id,
                tenant=tenant,
                adapter=target.adapter.digest if target.adapter else None,
                prompt=ids,
                sampling=sampling,
                deadline=time.time() + state.settings.request_timeout_s,
            )
            waiting = await _enqueue(state, target, job)
            answer = Generation(
                *(served, request.stop, waiting, ids, job.deadline),
                silent=request.max_tokens == 0,
                scored=request.prompt_logprobs is not None,
            )
            admitted.answers.append(answer)
    except BaseException:
        admitted.leave(state.inflight)
        raise
    return admitted


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
    )


async def _enqueue(state: State, target: Target, job: Job) -> Waiting:
    lane = target.deployment.lane
    try:
        waiting, _ = await state.inflight.enqueue(lane, job, state.settings.max_backlog)
    except BacklogFull as full:
        throughput = await state.broker.tokens_per_s(lane)
        raise ApiError(
            429,
            "queue_full",
            f"{full.waiting} requests are waiting for deployment {target.deployment.name!r}: "
            "its backlog is full. Try again later, or raise max_replicas.",
            retry_after_s=retry_after_s(full.waiting, throughput),
        ) from full
    except TimeoutError as unsubscribed:
        raise redis_away() from unsubscribed
    except GateShut as shut:
        raise ApiError(503, "deployment_unavailable", str(shut), retry_after_s=2) from shut
    return waiting


def retry_after_s(waiting: int, tokens_per_s: float, tokens_a_request: float = 100.0) -> float:
    """How long a full backlog takes to drain by half; 10 s while no replica has been measured."""
    if tokens_per_s <= 0:
        return 10.0
    return min(max(1.0, 0.5 * waiting * tokens_a_request / tokens_per_s), 120.0)


def _prepare(state: State, tenant: str, request: GenerationRequest) -> tuple[Target, ServedModel]:
    with Session(state.database, expire_on_commit=False) as session:
        target = resolve(session, tenant, request.model)
    deployment = target.deployment
    if deployment.status not in ADMITTING:
        errored = deployment.status == Status.ERRORED
        reason = (
            f" could not start: {deployment.reason}" if errored else f" is {deployment.status}."
        )
        raise ApiError(
            503 if errored else 409,
            f"deployment_{deployment.status}",
            f"Deployment {deployment.name!r}{reason} Start it: loraplex start {deployment.name}",
            param="model",
        )
    folder = state.models.find(deployment.base_model)
    if folder is None:
        raise ApiError(
            503,
            "deployment_pending",
            f"The base model of deployment {deployment.name!r} is still being fetched.",
            retry_after_s=5,
        )
    return target, state.served.load(folder)


def _infill(served: ServedModel, suffix: str) -> Infill:
    marks = infill_marks(served.tokenizer)
    return Infill(marks, _encode(served, suffix, special=False))


def _tokenize(served: ServedModel, prompt: Prompt, infill: Infill | None) -> list[int]:
    ids = _encode_prompt(served, prompt)
    return infill.around(served.tokenizer, ids) if infill else ids


def _encode_prompt(served: ServedModel, prompt: Prompt) -> list[int]:
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
        text = served.template.render(prompt)  # type: ignore[arg-type]
    except TemplateRefused as refused:
        raise bad_request(f"The model's chat template refused: {refused}", "messages") from refused
    return _encode(served, text, special=False)


def _encode(served: ServedModel, text: str, *, special: bool) -> list[int]:
    if len(text) > _CHARACTERS_A_TOKEN * served.context_length:  # not worth tokenizing
        raise _too_long(f"the prompt has {len(text)} characters.", served.context_length)
    try:
        text.encode()
    except UnicodeEncodeError as broken:  # half of a surrogate pair, which JSON can spell
        raise bad_request(f"The text is not valid Unicode: {broken.reason}.") from broken
    return list(served.tokenizer.encode(text, add_special_tokens=special).ids)


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
