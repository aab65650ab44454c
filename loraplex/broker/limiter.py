"""Reserve and settle shares of a tenant's limits: `scripts/reserve.lua`, `scripts/settle.lua`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis.asyncio

from loraplex.broker.script_calls import ScriptCalls
from loraplex.keys import limits_prefix
from loraplex.limits import Bucket, Refusal, Scope, Standing


class Limiter:
    """An API process' side."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._scripts = ScriptCalls(client, ("reserve", "settle"))

    async def reserve(
        self, tenant: str, scopes: Sequence[Scope], answers: Mapping[str, int], deadline: float
    ) -> Standing | Refusal:
        """Hold `answers` (reservation → tokens) against the limits of all scopes, or of none.

        What isn't settled by the deadline (Unix seconds) holds up nobody after it.
        """
        prefix = limits_prefix(tenant)
        args: list[str | int] = [prefix, math.ceil(deadline * 1000), len(scopes)]
        for scope in scopes:
            limits = scope.limits
            rates = (limits.requests_per_min, limits.tokens_per_min)
            most = (*rates, limits.tokens_per_day, limits.concurrent)
            args += [scope.of, *("" if each is None else each for each in most)]
        args += [part for answer in answers.items() for part in answer]
        keys = [prefix + "held", prefix + "reserved"]
        keys += [f"{prefix}scope:{scope.of}" for scope in scopes]
        return _verdict(scopes, await self._scripts.call("reserve", keys, args))

    async def settle(self, tenant: str, took: Mapping[str, int | None]) -> None:
        """Reservation → tokens that its answer took; None: it was never accepted."""
        keys, args = settling(tenant, took.items())
        await self._scripts.call("settle", keys, args)


def settling(
    tenant: str, took: Iterable[tuple[str, int | None]]
) -> tuple[list[str], list[str | int]]:
    """Keys and arguments of `settle.lua`."""
    prefix = limits_prefix(tenant)
    parts = ("" if part is None else part for each in took for part in each)
    return [prefix + "held", prefix + "reserved"], [prefix, *parts]


def _verdict(scopes: Sequence[Scope], reply: Any) -> Standing | Refusal:
    allowed, index, kind, wait_ms, *left = reply
    numbers = [int(each) for each in left]
    standing = Standing(
        requests=_emptiest(scopes, "requests_per_min", numbers[0::4], numbers[1::4]),
        tokens=_emptiest(scopes, "tokens_per_min", numbers[2::4], numbers[3::4]),
    )
    if allowed:
        return standing
    wait_s = math.inf if int(wait_ms) < 0 else int(wait_ms) / 1000
    return Refusal(scopes[int(index) - 1], kind.decode(), wait_s, standing)


def _emptiest(
    scopes: Sequence[Scope], limit: str, left: Sequence[int], reset_ms: Sequence[int]
) -> Bucket | None:
    buckets = [
        Bucket(most, remaining, reset / 1000)
        for scope, remaining, reset in zip(scopes, left, reset_ms, strict=True)
        if (most := getattr(scope.limits, limit)) is not None
    ]
    return min(buckets, key=lambda each: each.part, default=None)
