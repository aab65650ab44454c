"""A Redis Cluster of three server processes."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis

from loraplex.embedded.ports import free_port
from loraplex.embedded.valkey import find_server, write_config

_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
_PATIENCE_S = 60


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Its URL."""
    with ExitStack() as stack:
        nodes = [_start(folder / str(number), stack) for number in range(len(_SLOTS))]
        clients = [redis.Redis(port=port, password="secret") for port, _ in nodes]
        for client, slots in zip(clients, _SLOTS, strict=True):
            _until(partial(_answers, client))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        for port, bus in nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for client in clients:
            _until(partial(_is_whole, client))
        yield f"redis+cluster://:secret@127.0.0.1:{nodes[0][0]}/0"


def _start(folder: Path, stack: ExitStack) -> tuple[int, int]:
    """Its port, and that of the cluster's bus."""
    port, bus = free_port(), free_port()
    config = write_config(folder, port, "secret")
    options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--masterauth", "secret"]
    server = subprocess.Popen(
        [str(find_server()), str(config), *options], stdout=subprocess.DEVNULL
    )
    stack.callback(server.wait)
    stack.callback(server.terminate)
    return port, bus


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _is_whole(client: "redis.Redis") -> bool:
    told = client.execute_command("CLUSTER INFO")
    return (told["cluster_state"], told["cluster_known_nodes"]) == ("ok", "3")


def _until(good: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.05)
