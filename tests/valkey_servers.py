"""Valkey servers of tests: one as `loraplex up` starts it, or a cluster of three processes."""

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
PASSWORD = "secret"


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Its URL."""
    with ExitStack() as stack:
        nodes = [_start(folder / str(number), stack) for number in range(len(_SLOTS))]
        clients = [redis.Redis(port=port, password=PASSWORD) for port, _ in nodes]
        for client, slots in zip(clients, _SLOTS, strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        for port, bus in nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for client in clients:
            _until(partial(_is_whole, client))
        yield f"redis+cluster://:{PASSWORD}@127.0.0.1:{nodes[0][0]}/0"


def _start(folder: Path, stack: ExitStack) -> tuple[int, int]:
    """Its port, and that of the cluster's bus."""
    bus = free_port()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--masterauth", PASSWORD)
    return stack.enter_context(_running(folder, *options)), bus


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of one as `loraplex up` starts it."""
    with _running(folder) as port:
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"


@contextmanager
def _running(folder: Path, *options: str) -> Iterator[int]:
    """Its port, once it answers."""
    port = free_port()
    config = write_config(folder, port, PASSWORD)
    command = [str(find_server()), str(config), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, password=PASSWORD)
    try:
        _until(lambda: process.poll() is not None or _answers(client))
        assert process.poll() is None, "the server has ended"
        yield port
    finally:
        process.terminate()
        process.wait()


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
