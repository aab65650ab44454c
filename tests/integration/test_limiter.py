"""Limits against a real Valkey: what is reserved, refused, settled."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis as redis_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraplex.broker.connection import connect_async
from loraplex.broker.limiter import Limiter
from loraplex.keys import limits_prefix
from loraplex.limits import Limits, Refusal, Scope, Standing

LATER = time.time() + 3600
_names = itertools.count()


@pytest.fixture
def run(valkey: "redis_module.Redis", valkey_url: str) -> Callable[..., Any]:
    """Run a coroutine function with a limiter."""

    def with_limiter(work: Callable[[Limiter], Coroutine[None, None, Any]]) -> Any:
        async def main() -> Any:
            client = connect_async(valkey_url)
            try:
                return await work(Limiter(client))
            finally:
                await client.aclose()

        return asyncio.run(main())

    return with_limiter


def everything(**limits: int) -> list[Scope]:
    return [Scope("", Limits(**limits))]


async def ask(
    limiter: Limiter, scopes: list[Scope], tokens: int = 1, name: str = "", tenant: str = "t"
) -> Standing | Refusal:
    name = name or f"r{next(_names)}"
    return await limiter.reserve(tenant, scopes, {name: tokens}, LATER)


def test_a_minutes_worth_of_requests_and_then_the_rate(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(requests_per_min=3)
        for left in (2, 1, 0):
            standing = await ask(limiter, scopes)
            assert isinstance(standing, Standing) and standing.requests is not None
            assert (standing.requests.limit, standing.requests.remaining) == (3, left)
        refusal = await ask(limiter, scopes)
        assert isinstance(refusal, Refusal)
        assert refusal.kind == "requests" and 15 < refusal.wait_s <= 20, "one comes each 20 s"
        assert isinstance(await ask(limiter, scopes, tenant="another"), Standing)

    run(work)


def test_what_one_scope_refuses_is_charged_to_none(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = [Scope("", Limits(requests_per_min=100)), Scope("dep", Limits(concurrent=1))]
        assert isinstance(await ask(limiter, scopes, name="a"), Standing)
        for _ in range(5):
            refusal = await ask(limiter, scopes)
            assert isinstance(refusal, Refusal)
            assert (refusal.scope.of, refusal.kind, refusal.limit) == ("dep", "concurrent", 1)
            assert refusal.standing.requests
            assert refusal.standing.requests.remaining >= 99, "one comes back each 0.6 s"
        await limiter.settle("t", {"a": 10})
        assert isinstance(await ask(limiter, scopes), Standing)

    run(work)


def test_a_long_answer_is_charged_by_what_it_took(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(tokens_per_min=1000)
        await ask(limiter, scopes, 100, "long")
        await limiter.settle("t", {"long": 3000})
        refusal = await ask(limiter, scopes, 100)
        assert isinstance(refusal, Refusal) and refusal.kind == "tokens"
        assert 115 < refusal.wait_s <= 126, "2,100 over the bucket at 1,000 a minute"

    run(work)


def test_settled_once_whoever_does_it(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(tokens_per_min=1000, concurrent=2, tokens_per_day=900)
        begun = time.monotonic()
        await ask(limiter, scopes, 800, "a")
        for _ in range(3):
            await limiter.settle("t", {"a": 100})
        standing = await ask(limiter, scopes, 0)
        assert isinstance(standing, Standing) and standing.tokens is not None
        came_back = 1000 / 60 * (time.monotonic() - begun)
        assert 898 <= standing.tokens.remaining <= 901 + came_back
        assert isinstance(await ask(limiter, scopes, 800), Standing)
        full = await ask(limiter, scopes, 1)
        assert isinstance(full, Refusal) and full.kind in ("concurrent", "day")

    run(work)


def test_what_was_never_accepted_does_not_count(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(requests_per_min=2, tokens_per_min=100, tokens_per_day=100)
        for number in range(20):
            assert isinstance(await ask(limiter, scopes, 90, f"n{number}"), Standing)
            await limiter.settle("t", {f"n{number}": None})

    run(work)


def test_what_can_never_be_is_told_so(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(concurrent=2)
        refusal = await limiter.reserve("t", scopes, dict.fromkeys("abc", 1), LATER)
        assert isinstance(refusal, Refusal) and refusal.never
        day = await ask(limiter, everything(tokens_per_day=10), 11)
        assert isinstance(day, Refusal) and day.never and day.kind == "day"

    run(work)


def test_more_than_a_minutes_worth_waits_for_a_full_bucket(run: Callable[..., Any]) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(tokens_per_min=100)
        assert isinstance(await ask(limiter, scopes, 5000, "big"), Standing)
        await limiter.settle("t", {"big": 400})
        refusal = await ask(limiter, scopes, 1)
        assert isinstance(refusal, Refusal) and 170 < refusal.wait_s < 182

    run(work)


def test_what_nobody_settles_ends_at_its_deadline(
    run: Callable[..., Any], valkey: "redis_module.Redis"
) -> None:
    async def work(limiter: Limiter) -> None:
        scopes = everything(concurrent=2)
        past = time.time() - 1
        await limiter.reserve("t", scopes, {"lost": 5, "lost too": 5}, past)
        assert isinstance(await ask(limiter, scopes, name="next"), Standing)

    run(work)
    prefix = limits_prefix("t")
    assert valkey.hkeys(prefix + "reserved") == [b"next"]
    assert valkey.zcard(prefix + "held") == 1
    assert valkey.hget(prefix + "scope:", "running") == b"1"
    assert all(valkey.ttl(key) > 0 for key in valkey.scan_iter(match="lpx:*"))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 800)), min_size=1, max_size=30),
)
def test_books_balance(
    run: Callable[..., Any], valkey: "redis_module.Redis", concurrent: int, asked: Any
) -> None:
    """Whatever is asked and settled: what is charged is what was taken, and no more runs at once
    than may."""
    valkey.flushall()

    async def work(limiter: Limiter) -> None:
        scopes = everything(tokens_per_min=10_000_000, tokens_per_day=2000, concurrent=concurrent)
        charged, running = 0, {}
        for number, (tokens, took) in enumerate(asked):
            verdict = await ask(limiter, scopes, tokens, f"{number}")
            held = sum(running.values())
            fits = charged + held + tokens <= 2000 and len(running) < concurrent
            assert isinstance(verdict, Standing) == fits
            if fits:
                running[f"{number}"] = tokens
            if number % 3 == 2 and running:
                name = next(iter(running))
                del running[name]
                await limiter.settle("t", {name: took})
                charged += took
        scope = valkey.hgetall(limits_prefix("t") + "scope:")
        assert int(scope[b"running"]) == len(running)
        assert int(scope[b"used"]) == charged + sum(running.values())

    run(work)


def test_the_rate_is_enforced(run: Callable[..., Any]) -> None:
    """Over two seconds of as many requests as there can be: a full bucket, and what came since."""

    async def work(limiter: Limiter) -> tuple[int, float]:
        scopes = everything(requests_per_min=600)
        await asyncio.gather(*(ask(limiter, scopes, tenant="other") for _ in range(50)))  # connects
        accepted, begun = 0, time.monotonic()
        while (elapsed := time.monotonic() - begun) < 2:
            many = [ask(limiter, scopes) for _ in range(50)]
            accepted += sum(isinstance(each, Standing) for each in await asyncio.gather(*many))
        return accepted, elapsed

    accepted, elapsed = run(work)
    assert 600 + 10 * elapsed - 15 <= accepted <= 600 + 10 * elapsed + 1
