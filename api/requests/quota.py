"""What a tenant may ask for: reserved before its request is queued, settled when it has ended."""

import secrets
from collections.abc import Sequence
from contextlib import suppress

from api.errors import ApiError
from api.keyring import Caller
from api.state import State
from loraplex.broker.connection import Unavailable
from loraplex.entities import Deployment
from loraplex.limits import Bucket, Limits, Refusal, Scope, Standing
from loraplex.messages import Job

OVER_LIMIT = "rate_limit_exceeded"
_SETTLED_WITHIN_S = 120.0  # of a request's deadline, by the scaler at the latest
_RESERVED_OUTPUT = 256  # tokens of an answer that are held before it is known how long it gets
_LONGEST_RETRY_S = 60.0  # SDKs wait no longer


def scopes_of(caller: Caller, deployment: Deployment) -> list[Scope]:
    """Whose limits a request is held against; none: it needs no reservation."""
    found = [Scope("", caller.limits), Scope(deployment.id, Limits(**deployment.limits))]
    return [scope for scope in found if scope.limits]


def check_budget(caller: Caller) -> None:
    """Raises ApiError."""
    if caller.over_budget:
        message = (
            f"The budget of tenant {caller.tenant!r} for this month is used up. An operator raises "
            f"it: loraplex tenants set {caller.tenant} --budget AMOUNT"
        )
        raise ApiError(429, "insufficient_quota", message, repeatable=False)


def new_reservation() -> str:
    return secrets.token_hex(8)


async def reserve(
    state: State, deployment: Deployment, scopes: Sequence[Scope], jobs: Sequence[Job]
) -> dict[str, str]:
    """Hold all of a request's answers. Returns headers. Raises ApiError 429."""
    wanted = {job.account.reservation: _prompt(job) + _output(job) for job in jobs}
    tenant, deadline = jobs[0].tenant, jobs[0].deadline + _SETTLED_WITHIN_S
    verdict = await state.limiter.reserve(tenant, scopes, wanted, deadline)
    if isinstance(verdict, Refusal):
        raise _refused(verdict, tenant, deployment, sum(wanted.values()), len(wanted))
    return headers(verdict)


async def give_back(state: State, jobs: Sequence[Job]) -> None:
    """The queue didn't take them."""
    took = dict.fromkeys(job.account.reservation for job in jobs)
    with suppress(*Unavailable):  # it ends at its deadline
        await state.limiter.settle(jobs[0].tenant, took)


def reserved(jobs: Sequence[Job]) -> list[tuple[str, int]]:
    """Of each answer its reservation, and the prompt tokens that count. Empty: nothing is held."""
    held = [(job.account.reservation, _prompt(job)) for job in jobs]
    return held if held[0][0] else []


def headers(standing: Standing) -> dict[str, str]:
    """As OpenAI's, where there are limits."""
    found: dict[str, str] = {}
    for name, bucket in (("requests", standing.requests), ("tokens", standing.tokens)):
        if bucket is not None:
            found |= _bucket_headers(name, bucket)
    return found


def _bucket_headers(name: str, bucket: Bucket) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(bucket.limit),
        f"x-ratelimit-remaining-{name}": str(bucket.remaining),
        f"x-ratelimit-reset-{name}": duration(bucket.reset_s),
    }


def duration(seconds: float) -> str:
    """As OpenAI writes it: 20ms, 1.5s, 6m0s, 1h0m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:.0f}s"
    return f"{minutes}m{rest:.0f}s" if minutes else f"{rest:g}s"


def _prompt(job: Job) -> int:
    return len(job.prompt) if job.account.prompt else 0


def _output(job: Job) -> int:
    return min(job.sampling.max_tokens, _RESERVED_OUTPUT)


def _refused(
    refusal: Refusal, tenant: str, deployment: Deployment, tokens: int, answers: int
) -> ApiError:
    what = {
        "requests": "requests per minute",
        "tokens": "tokens per minute",
        "day": "tokens per day (UTC)",
        "concurrent": "concurrent answers",
    }[refusal.kind]
    where = f" on deployment {deployment.name!r}" if refusal.scope.of else ""
    message = f"Rate limit of tenant {tenant!r}{where}: {refusal.limit} {what}. "
    if refusal.never:
        asked = "answers" if refusal.kind == "concurrent" else "tokens"
        count = answers if refusal.kind == "concurrent" else tokens
        message += f"This request is over it by itself ({count} {asked}): make it smaller."
    else:
        message += f"Try again in {duration(refusal.wait_s)}."
    return ApiError(
        429,
        OVER_LIMIT,
        message,
        retry_after_s=None if refusal.never else refusal.wait_s,
        repeatable=refusal.wait_s <= _LONGEST_RETRY_S,
        headers=headers(refusal.standing),
    )
