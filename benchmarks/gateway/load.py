"""Callers on kept connections, each sends its next request when the last is answered."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

BODY = {
    "model": "chat",
    "messages": [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": "Where do you live? Answer in a sentence, please."},
    ],
    "max_tokens": 8,
    "temperature": 0.7,
    "seed": 7,
}


@dataclass(frozen=True, slots=True)
class Load:
    requests_s: float
    p50_ms: float
    p99_ms: float


class Caller(asyncio.Protocol):
    def __init__(self, request: bytes, until: float) -> None:
        self._request = request
        self._until = until
        self._answer = b""
        self._sent = 0.0
        self.times: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.ended.set_exception(RuntimeError(self._answer.decode()))
            self._transport.close()
            return
        now = time.perf_counter()
        self.times.append(now - self._sent)
        self._answer = b""
        if now < self._until:
            self._send()
        else:
            self.ended.set_result(None)
            self._transport.close()


def load(port: int, key: str, callers: int, seconds: float) -> Load:
    return asyncio.run(_load(port, key, callers, seconds))


async def _load(port: int, key: str, callers: int, seconds: float) -> Load:
    body = json.dumps(BODY).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    loop, begun = asyncio.get_running_loop(), time.perf_counter()
    made = [
        loop.create_connection(lambda: Caller(request, begun + seconds), "127.0.0.1", port)
        for _ in range(callers)
    ]
    found = [protocol for _, protocol in await asyncio.gather(*made)]
    await asyncio.gather(*(caller.ended for caller in found))
    took = time.perf_counter() - begun
    times = [each * 1000 for caller in found for each in caller.times]
    points = statistics.quantiles(times, n=100)
    return Load(len(times) / took, points[49], points[98])
