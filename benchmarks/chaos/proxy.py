"""A TCP proxy before Redis whose connections can be severed, refused or stalled."""

import asyncio
from contextlib import suppress


class Proxy:
    """A door of its own for each kind of process."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.sever()

    def sever(self) -> None:
        """Cut every connection; new ones are let in."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def part(self, seconds: float) -> None:
        """Cut every connection, and refuse new ones for a while."""
        self._refuses = True
        self.sever()
        await asyncio.sleep(seconds)
        self._refuses = False

    async def stall(self, seconds: float) -> None:
        """Hold all bytes back for a while: then the old ones arrive after all."""
        self._flows.clear()
        await asyncio.sleep(seconds)
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, upstream[1]}
        self._writers |= pair
        try:
            await asyncio.gather(self._pump(reader, upstream[1]), self._pump(upstream[0], writer))
        finally:
            self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
