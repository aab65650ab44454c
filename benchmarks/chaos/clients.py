"""The clients: `openai` and httpx-sse as people use them, and how they behave when cut off."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import openai
from httpx_sse import aconnect_sse

from benchmarks.chaos.platform import Platform
from benchmarks.chaos.requests import Answer
from benchmarks.chaos.verdict import Received, Verdict

PATIENCE_S = 240.0  # a request that takes longer is stuck
_URL = "/v1/chat/completions"
_BUSY = (429, 502, 503)


class Refused(Exception):
    """An answer that no client can go on from."""


class Clients:
    """Sends requests in several manners, and judges what comes."""

    def __init__(self, platform: Platform, verdict: Verdict, random_: random.Random) -> None:
        self._verdict = verdict
        self._random = random_
        self._apis = list(platform.api_urls)
        self._http = {name: platform.http(name) for name in self._apis}
        self._openai = {
            name: openai.AsyncOpenAI(
                base_url=f"{url}/v1", api_key=platform.key, max_retries=0, timeout=60
            )
            for name, url in platform.api_urls.items()
        }
        self.manners: dict[str, Callable[..., Awaitable[None]]] = {
            "openai_stream": self._openai_stream,
            "openai_whole": self._openai_whole,
            "sse": self._sse,
            "sse_slow": self._sse_slow,
            "leaves": self._leaves,
            "cancels": self._cancels,
        }

    async def aclose(self) -> None:
        for http in self._http.values():
            await http.aclose()
        for client in self._openai.values():
            await client.close()

    async def send(
        self, manner: str, name: str, body: dict[str, Any], expected: list[Answer]
    ) -> None:
        """One request, to its end. Whatever goes wrong is in the verdict."""
        self._verdict.manners[manner] += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.manners[manner](name, body, expected)
        except TimeoutError:
            self._verdict.blame("stuck", f"{name} ({manner}) after {PATIENCE_S:g} s")
        except Refused as refused:
            self._verdict.blame("lost", f"{name} ({manner}): {refused}")

    async def _openai_whole(self, name: str, body: dict[str, Any], expected: list[Answer]) -> None:
        arguments = _for_openai(name, body)
        answer = await self._until_answered(
            lambda client: client.chat.completions.create(**arguments)
        )
        self._verdict.heard(answer.id, len(expected))
        texts = [choice.message.content for choice in answer.choices]
        self._verdict.compare(name, texts, [each.text for each in expected])

    async def _openai_stream(self, name: str, body: dict[str, Any], expected: list[Answer]) -> None:
        """The SDK can't resume: it sends the same Idempotency-Key and reads from the beginning."""
        arguments = _for_openai(name, body) | {"stream": True}
        attempts: list[list[str]] = []

        async def read(client: openai.AsyncOpenAI) -> bool:
            texts = [""] * len(expected)
            attempts.append(texts)
            ended = 0
            async for chunk in await client.chat.completions.create(**arguments):
                self._verdict.heard(chunk.id, len(expected))
                for choice in chunk.choices:
                    texts[choice.index] += choice.delta.content or ""
                    ended += choice.finish_reason is not None
            return ended == len(expected)

        if not await self._until_answered(read):
            raise Refused("the stream ended without its finish")
        for texts in attempts:
            for begun, answer in zip(texts, expected, strict=True):
                if not answer.text.startswith(begun):
                    self._verdict.blame("wrong_text", f"{name}: {begun!r} of {answer.text!r}")
        self._verdict.compare(name, attempts[-1], [each.text for each in expected])

    async def _until_answered(self, ask: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
        """As a patient user of the SDK does: again, at another process, with the same key."""
        while True:
            client = self._openai[self._any_api()]
            try:
                return await ask(client)
            except openai.APIStatusError as failed:
                await self._again(failed.status_code, failed.response.headers, failed.message)
            except (openai.APIConnectionError, httpx.TransportError) as cut:
                await self._cut(cut)
            except openai.APIError as failed:  # an error event
                raise Refused(str(failed)) from failed

    async def _sse(
        self, name: str, body: dict[str, Any], expected: list[Answer], pause_s: float = 0.0
    ) -> None:
        got = await self._stream(body, len(expected), lambda _: False, pause_s)
        self._verdict.compare(name, got.texts, [each.text for each in expected])
        if got.usage != expected[0].tokens:
            self._verdict.blame("lost", f"{name}: usage {got.usage}, not {expected[0].tokens}")

    async def _sse_slow(self, name: str, body: dict[str, Any], expected: list[Answer]) -> None:
        await self._sse(name, body, expected, pause_s=0.1)

    async def _leaves(self, name: str, body: dict[str, Any], expected: list[Answer]) -> None:
        """Goes away in the middle, for good. What it got must be the beginning."""
        events = self._random.randrange(1, 8)

        def enough(got: Received) -> bool:
            nonlocal events
            events -= 1
            return events <= 0

        self._begun(name, await self._stream(body, len(expected), enough), expected)

    async def _cancels(self, name: str, body: dict[str, Any], expected: list[Answer]) -> None:
        """Asks for the end of it in the middle, and reads on until it is told."""
        cancelled: asyncio.Task[None] | None = None

        def cancel(got: Received) -> bool:
            nonlocal cancelled
            if cancelled is None:
                cancelled = asyncio.create_task(self._cancel(got.last_id.rpartition(":")[0]))
            return False

        got = await self._stream(body, len(expected), cancel, may_be_cancelled=True)
        if cancelled is not None:
            await cancelled
        self._begun(name, got, expected)

    async def _cancel(self, request: str) -> None:
        for _ in range(20):
            try:
                answer = await self._http[self._any_api()].delete(f"/api/v1/requests/{request}")
                if answer.status_code == 200:
                    return
            except httpx.TransportError as cut:
                await self._cut(cut)

    def _begun(self, name: str, got: Received, expected: list[Answer]) -> None:
        for text, answer in zip(got.texts, expected, strict=True):
            if not answer.text.startswith(text):
                self._verdict.blame("wrong_text", f"{name}: {text!r} of {answer.text!r}")

    async def _stream(
        self,
        body: dict[str, Any],
        answers: int,
        enough: Callable[[Received], bool],
        pause_s: float = 0.0,
        *,
        may_be_cancelled: bool = False,
    ) -> Received:
        """One request over as many connections as it takes, by Last-Event-ID."""
        got = Received(answers)
        body = body | {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True}
        while not got.done:
            http = self._http[self._any_api()]
            headers = {"last-event-id": got.last_id} if got.last_id else {}
            try:
                async with aconnect_sse(http, "POST", _URL, json=body, headers=headers) as source:
                    answer = source.response
                    if answer.status_code != 200:
                        text = (await answer.aread()).decode()
                        if may_be_cancelled and "request_not_found" in text:
                            return got
                        await self._again(answer.status_code, answer.headers, text)
                        continue
                    async for event in source.aiter_sse():
                        if event.data == "[DONE]":
                            got.done = True
                            break
                        chunk = json.loads(event.data)
                        if "error" in chunk:
                            if may_be_cancelled and chunk["error"]["code"] == "cancelled":
                                return got
                            raise Refused(f"after {got.last_id}: {event.data}")
                        got.add(chunk, event.id, self._verdict)
                        if enough(got):
                            return got
                        if pause_s:
                            await asyncio.sleep(pause_s)
            except httpx.TransportError as cut:
                await self._cut(cut)
        return got

    async def _again(self, status: int, headers: Any, text: str) -> None:
        """Wait as a busy platform asks to. Raises Refused for anything else."""
        if status not in _BUSY:
            raise Refused(f"{status} {text}")
        self._verdict.met[str(status)] += 1
        if "retry-after" not in headers:
            raise Refused(f"{status} without Retry-After: {text}")
        await asyncio.sleep(min(float(headers["retry-after"]), 5) * self._random.uniform(0.5, 1))

    async def _cut(self, cut: Exception) -> None:
        self._verdict.met[type(cut).__name__] += 1
        await asyncio.sleep(self._random.uniform(0.1, 0.6))

    def _any_api(self) -> str:
        return self._random.choice(self._apis)


async def undisturbed(platform: Platform, bodies: list[dict[str, Any]]) -> list[list[Answer]]:
    """What each request is answered with when nothing breaks."""
    limit = asyncio.Semaphore(16)

    async with platform.http() as http:

        async def ask(body: dict[str, Any]) -> list[Answer]:
            async with limit:
                answer = await http.post(_URL, json=body, timeout=PATIENCE_S)
            answer.raise_for_status()
            facts = answer.json()
            tokens = facts["usage"]["completion_tokens"]
            return [Answer(c["message"]["content"], tokens) for c in facts["choices"]]

        started = time.monotonic()
        answers = await asyncio.gather(*map(ask, bodies))
    tokens = sum(each[0].tokens for each in answers)
    print(f"undisturbed: {tokens / (time.monotonic() - started):.0f} tokens/s", flush=True)
    return answers


def _for_openai(name: str, body: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in body.items() if key != "ignore_eos"}
    extra = {key: body[key] for key in ("ignore_eos",) if key in body}
    return known | {"extra_body": extra, "extra_headers": {"idempotency-key": name}}
