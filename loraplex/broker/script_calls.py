"""Calls of Lua scripts from an event loop: those of one moment share a round trip.

A call by itself costs a connection's turn, timers and two system calls, several times of what Redis
needs for it. While a round trip is under way further calls gather and go together in the next one.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis.asyncio
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from loraplex.broker.scripts import source

_MOST = 100  # calls in a round trip
_UNDER_WAY = 2  # round trips at once: one that is slow doesn't hold up everything

Part = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    keys: Sequence[str]
    args: Sequence[Part]
    reply: "asyncio.Future[Any]"


class ScriptCalls:
    """One per client; used by one event loop."""

    def __init__(self, client: "redis.asyncio.Redis", names: Sequence[str]) -> None:
        self._redis = client
        self._sources = {name: source(name) for name in names}
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._sources.items()
        }
        self._waiting: list[_Call] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._sending = 0  # of them, those that look at `_waiting` again

    async def call(self, name: str, keys: Sequence[str], args: Sequence[Part] = ()) -> Any:
        """A script's reply. Raises what redis-py does."""
        call = _Call(name, keys, args, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._sending < _UNDER_WAY:
            self._sending += 1
            sender = asyncio.create_task(self._send())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return await call.reply

    async def _send(self) -> None:
        try:
            while self._waiting:
                calls, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                # Who doesn't wait any more may have been told that it wasn't done.
                calls = [call for call in calls if not call.reply.done()]
                try:
                    await self._round_trip(calls)
                except BaseException as failed:
                    for call in calls:
                        if not call.reply.done():
                            call.reply.set_exception(failed)
                    if not isinstance(failed, Exception):
                        raise
        finally:  # at once: whoever calls from now on must not rely on it
            self._sending -= 1

    async def _round_trip(self, calls: Sequence[_Call]) -> None:
        replies = await self._execute(calls)
        unknown = [
            call
            for call, reply in zip(calls, replies, strict=True)
            if isinstance(reply, NoScriptError)
        ]
        if unknown:  # Redis was restarted, or never heard of it
            for name in {call.name for call in unknown}:
                await self._redis.script_load(self._sources[name])
            again = await self._execute(unknown)
            _give(unknown, again)
        _give(calls, replies)

    async def _execute(self, calls: Sequence[_Call]) -> list[Any]:
        if not calls:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                digest = self._digests[call.name]
                pipeline.execute_command("EVALSHA", digest, len(call.keys), *call.keys, *call.args)
            found: list[Any] = await pipeline.execute(raise_on_error=False)
            return found


def _give(calls: Sequence[_Call], replies: Sequence[Any]) -> None:
    """Those that wait no longer, or have theirs, are passed over."""
    for call, reply in zip(calls, replies, strict=True):
        if call.reply.done():
            continue
        if isinstance(reply, Exception):
            call.reply.set_exception(reply)
        else:
            call.reply.set_result(reply)


def call_each(
    client: "redis.Redis", script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Part]]]
) -> list[Any]:
    """A script with several keys and arguments, in one round trip; on a cluster one to each server.
    Raises what the first one that failed did."""

    def execute(these: Sequence[int]) -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for index in these:
                keys, args = calls[index]
                pipeline.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)  # type: ignore[no-untyped-call]
            return list(pipeline.execute(raise_on_error=False))

    replies = execute(range(len(calls)))
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:  # Redis was restarted, or never heard of it
        client.script_load(script.script)
        for index, reply in zip(unknown, execute(unknown), strict=True):
            replies[index] = reply
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
