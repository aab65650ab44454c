"""Streaming clients that cost little: they count events and note when they came."""

import asyncio
import json
import re
import time
from typing import Any

import uvloop

_ID = re.compile(rb"id: ([0-9a-z]+):(\d+)\n")
_END = b"0\r\n\r\n"  # of a chunked body


class Reader(asyncio.Protocol):
    """One request on a connection of its own. What comes is looked at when all has come."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.chunks: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.chunks.append((time.time(), data))
        if data.endswith(_END):
            self.ended.set_result(None)
            self._transport.close()

    def connection_lost(self, cause: Exception | None) -> None:
        if not self.ended.done():
            tail = b"".join(data for _, data in self.chunks)[-300:]
            self.ended.set_exception(ConnectionError(f"cut off after {tail!r}"))

    @property
    def events(self) -> int:
        return sum(data.count(b"\ndata: {") for _, data in self.chunks)

    def came(self) -> tuple[str, dict[int, float]]:
        """The request's id, and when each position came (0 is the opening, not a token)."""
        name, times = "", {}
        for at, data in self.chunks:
            for found, position in _ID.findall(data):
                name = found.decode()
                times.setdefault(int(position), at)
        times.pop(0, None)
        return name, times


def read_all(port: int, key: str, streams: int, tokens: int) -> list[Reader]:
    return uvloop.run(_read_all(port, key, streams, tokens))


async def _read_all(port: int, key: str, streams: int, tokens: int) -> list[Reader]:
    """As many streams at once, of so many tokens each; returns when all have ended."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "Go."}], "stream": True}
    body |= {"max_tokens": tokens, "ignore_eos": True}
    raw = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    readers = []
    for _ in range(streams):
        _, reader = await loop.create_connection(
            lambda: Reader(head.encode() + raw), "127.0.0.1", port
        )
        readers.append(reader)
    await asyncio.gather(*(reader.ended for reader in readers))
    return readers
