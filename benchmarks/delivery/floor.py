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

import redis.asyncio
import uvloop

from benchmarks.delivery.processes import Processes, until
from loraplex.embedded.ports import free_port

CHANNEL = "floor"
_SCRIPT = "redis.call('XADD', KEYS[1], '*', 's', ARGV[1]); redis.call('PUBLISH', KEYS[2], ARGV[1])"


def floor_ms(processes: Processes) -> float:
    """Median over 200 messages, 40 ms apart."""
    port, client = free_port(), processes.redis
    relay = processes.spawn([sys.executable, "-m", "benchmarks.delivery.floor", str(port)])
    until(lambda: bool(client.execute_command("PUBSUB", "NUMSUB", CHANNEL)[1]))
    publish = client.register_script(_SCRIPT)

    def publisher() -> None:
        for _ in range(200):
            time.sleep(0.04)  # everybody falls asleep: that is what is measured
            publish(keys=["floor:journal", CHANNEL], args=[repr(time.time())])

    thread = threading.Thread(target=publisher)
    took = []
    with socket.create_connection(("127.0.0.1", port), timeout=60) as reader:
        thread.start()
        for _ in range(200):
            sent = float(reader.recv(64))
            took.append(time.time() - sent)
    thread.join()
    relay.kill()
    client.delete("floor:journal")
    return round(statistics.median(took) * 1000, 3)


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
