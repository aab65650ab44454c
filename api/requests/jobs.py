"""A request → its jobs, one for each answer, and how they are shown."""

import hashlib
import secrets
import time
from collections.abc import Sequence

from fastapi.concurrency import run_in_threadpool
from msgspec import structs

from api.keyring import Caller
from api.requests import quota
from api.requests.models import ServedModel
from api.requests.prepare import prepare
from api.requests.request import GenerationRequest
from api.requests.resolver import Resolved
from api.requests.template import TIME_LIMIT_S, TemplateTooSlow
from api.requests.terms import Terms, request_id, unique_by
from loraplex import tracing
from loraplex.broker.cancellation import answer_id
from loraplex.messages import Account, Job, Shown

_SHORT = 8192  # characters, or tokens, that are tokenized while others' tokens wait
_SHORT_S = 0.02  # the same of a chat template


class JobMaker:
    """`api_id`: whom the answers are for."""

    def __init__(
        self, api_id: str, caller: Caller, terms: Terms, *, limited: bool, background: bool
    ) -> None:
        self._api_id = api_id
        self._caller = caller
        self._terms = terms
        self._limited = limited
        self._background = background

    async def make(self, request: GenerationRequest, resolved: Resolved) -> tuple[list[Job], Shown]:
        """In this thread if it is short: to change threads takes longer. Raises ApiError."""
        if _size(request) <= _SHORT:
            try:
                return self._make(request, resolved, _SHORT_S)
            except TemplateTooSlow:
                pass  # with all its time, where it holds up nobody
        return await run_in_threadpool(self._make, request, resolved, TIME_LIMIT_S)

    def _make(
        self, request: GenerationRequest, resolved: Resolved, limit_s: float
    ) -> tuple[list[Job], Shown]:
        caller, terms = self._caller, self._terms
        prompts, sampling = prepare(resolved.served, request, limit_s)
        unique = secrets.token_hex(8)
        if terms.idempotency_key is not None:
            unique = unique_by(caller.tenant, terms.idempotency_key)
        name = request_id(resolved.deployment.id, unique)
        variant = resolved.variant(request.user or unique)
        deadline, trace = time.time() + terms.timeout_s, tracing.current()
        jobs = [
            Job(
                request=answer_id(name, index),
                reply_to=self._api_id,
                tenant=caller.tenant,
                adapter=variant.digest,
                prompt=prompts[index // request.n],
                sampling=sampling(index),
                deadline=deadline,
                account=Account(
                    key=caller.key,
                    adapter=variant.name,
                    prompt=index % request.n == 0,
                    reservation=quota.new_reservation() if self._limited else "",
                ),
                background=self._background,
                trace=trace,
            )
            for index in range(request.n * len(prompts))
        ]
        shown = self._shown(request, name, prompts, resolved.served, deadline)
        return jobs, structs.replace(shown, adapter=variant.name)

    def _shown(
        self,
        request: GenerationRequest,
        name: str,
        prompts: list[list[int]],
        served: ServedModel,
        deadline: float,
    ) -> Shown:
        return Shown(
            request=name,
            tenant=self._caller.tenant,
            surface=request.surface,
            model=request.model,
            created=int(time.time()),
            deadline=deadline,
            answers=request.n * len(prompts),
            n=request.n,
            best=request.best or request.n,
            prompt_tokens=sum(map(len, prompts)),
            stop=list(request.stop),
            include_usage=request.include_usage,
            streamed=request.streamed,
            logprobs=request.logprobs_shown,
            silent=request.max_tokens == 0,
            prefixes=_echoed(request, prompts, served) if request.echo else [],
            scored=prompts if request.prompt_logprobs is not None else [],
            body=fingerprint(request) if self._comes_back(request) else "",
            grace_s=self._terms.grace_s,
            tools=served.tools.name if request.tools and served.tools else "",
        )

    def _comes_back(self, request: GenerationRequest) -> bool:
        """The same request may be sent again, to go on with this one."""
        return request.streamed or self._terms.idempotency_key is not None


def fingerprint(request: GenerationRequest) -> str:
    """The same for the same request, sent again. A seed that the client left out is no part."""
    return hashlib.sha256(repr(request).encode("utf-8", "surrogatepass")).hexdigest()


def _echoed(
    request: GenerationRequest, prompts: Sequence[list[int]], served: ServedModel
) -> list[str]:
    given = zip(request.prompts, prompts, strict=True)
    return [p if isinstance(p, str) else served.tokenizer.decode(ids) for p, ids in given]


def _size(request: GenerationRequest) -> int:
    """Characters of text, or numbers of tokens."""
    size = len(request.suffix) + request.n + len(request.grammar[1] if request.grammar else "")
    if request.tools is not None or request.template_arguments:
        size += len(repr((request.tools, request.template_arguments)))
    for prompt in request.prompts:
        size += len(prompt)
        if not isinstance(prompt, str) and prompt and not isinstance(prompt[0], int):
            size += sum(len(str(message)) for message in prompt)
    return size
