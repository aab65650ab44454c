"""The same way without the platform: a message into a stream and a channel, from there to a client.

Everybody sleeps between messages, as between the steps of an engine: on a virtual machine waking up
three processes is most of it. `python -m benchmarks.delivery.floor PORT` is the process between.
"""

import asyncio
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
import uvloop

CHANNEL = "floor"
_SCRIPT = "redis.call('XADD', KEYS[1], '*', 's', ARGV[1]); redis.call('PUBLISH', KEYS[2], ARGV[1])"


def floor_ms(spawn: Callable[[Sequence[str]], Any], port: int, client: "redis.Redis") -> float:
    """Median over 200 messages, 40 ms apart."""
    relay = spawn([sys.executable, "-m", "benchmarks.delivery.floor", str(port)])
    reader = _connected(port)
    while not client.execute_command("PUBSUB", "NUMSUB", CHANNEL)[1]:
        time.sleep(0.05)
    publish = client.register_script(_SCRIPT)

    def publisher() -> None:
        for _ in range(200):
            time.sleep(0.04)
            publish(keys=["floor:journal", CHANNEL], args=[repr(time.time())])

    thread = threading.Thread(target=publisher)
    thread.start()
    took = []
    for _ in range(200):
        sent = float(reader.recv(64))
        took.append(time.time() - sent)
    thread.join()
    reader.close()
    relay.kill()
    client.delete("floor:journal")
    return round(statistics.median(took) * 1000, 3)


def _connected(port: int) -> socket.socket:
    while True:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.05)


async def _relay(port: int) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def come(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(come, "127.0.0.1", port)
    client = redis.asyncio.Redis.from_url(os.environ["LORAPLEX_REDIS_URL"])
    async with server, client.pubsub() as pubsub:
        await pubsub.subscribe(CHANNEL)
        async for message in pubsub.listen():
            if message["type"] == "message":
                for writer in writers:
                    writer.write(message["data"])


if __name__ == "__main__":
    uvloop.run(_relay(int(sys.argv[1])))
