"""What tokens and requests cost an API process, and a request Redis: the real endpoint, real
readers, a replica whose engine computes nothing."""

import threading
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks.capacity.cpu import cpu_s
from benchmarks.capacity.fit import parts
from benchmarks.delivery.processes import Processes
from benchmarks.delivery.readers import Reader, read_all

POINTS = ((4, 3000), (16, 1500), (64, 500), (256, 150))  # streams, tokens of each
SHORT = (64, 1)  # requests of one token
OPEN = 900  # streams, for what one takes of memory
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class ApiCost:
    message_s: float  # CPU seconds of a replica's step, whatever it brings
    token_s: float
    request_s: float
    redis_request_s: float  # of Redis
    token_bytes: float  # to the client
    stream_bytes: float  # of memory, while it is open
    worst: float  # share that the fit is off at its worst point


def measure(processes: Processes, server: int, rounds: int) -> ApiCost:
    api, redis = _the_api(), psutil.Process(server)
    port, key = processes.ports["redis"], processes.key
    shapes, spent, sent = list[tuple[float, ...]](), list[float](), 0.0
    for streams, tokens in POINTS:
        end = processes.replica("fake", 0.0, streams)
        before = cpu_s(api)
        readers = read_all(port, key, streams, tokens)
        spent.append(cpu_s(api) - before)
        shapes.append((end()["steps"], streams * tokens, streams))
        sent = sum(map(_bytes, readers)) / streams / tokens
    end = processes.replica("fake", 0.0, SHORT[0])
    before, of_redis = cpu_s(api), cpu_s(redis)
    for _ in range(rounds):
        read_all(port, key, *SHORT)
    requests = SHORT[0] * rounds
    spent.append(cpu_s(api) - before)
    redis_request = (cpu_s(redis) - of_redis) / requests
    shapes.append((end()["steps"], requests, requests))
    (message, token, request), off = parts(np.array(shapes), np.array(spent))
    return ApiCost(message, token, request, redis_request, sent, _stream_bytes(processes, api), off)


def _stream_bytes(processes: Processes, api: psutil.Process) -> float:
    end = processes.replica("fake", 0.2, OPEN)
    before = api.memory_info().rss
    peak, ended = [before], threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            peak.append(api.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    read_all(processes.ports["redis"], processes.key, OPEN, 20)
    ended.set()
    looking.join()
    end()
    return (max(peak) - before) / OPEN


def _the_api() -> psutil.Process:
    (found,) = (each for each in psutil.Process().children() if each.cmdline()[-1] == "api")
    return found


def _bytes(reader: Reader) -> int:
    return sum(len(data) for _, data in reader.chunks)
