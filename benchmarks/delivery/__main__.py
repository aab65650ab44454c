"""Tokens per second from one API process to 64 and 256 streams, through Redis and from its memory;
latency from the commit of a token to its client.

`ratio_to_memory`: the same endpoint in both cases, alternating. The replica's engine computes
nothing: it is as fast as the platform takes its tokens.
`added_ms`: 64 streams of 25 tokens a second each, on two replicas of 32 (the default batch), from
the engine's output to the client's socket; `one_batch_ms`: on one replica, so that all 64 tokens
come at once; `one_stream_ms`: alone; `floor_ms`: one stream without the platform (`floor.py`).
`redis_calls_per_step`: all calls of the replica, at 256 streams.
"""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from api.openai.chat import CHAT
from api.requests.sse import encode
from benchmarks import report
from benchmarks.delivery.floor import floor_ms
from benchmarks.delivery.processes import Processes
from benchmarks.delivery.readers import read_all
from benchmarks.model_store import model_store

STEP_S = 0.04  # a fast GPU's decode step


def measure(quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="delivery-") as folder:
        processes = Processes(Path(folder) / "home", model_store())
        try:
            throughput, calls = _throughput(processes, quick)
            tokens = 100 if quick else 250
            floor = floor_ms(processes)
            latency = {
                "one stream": _latency(processes, tokens, 1, [1]),
                "64 in two batches": _latency(processes, tokens, 64, [32, 32]),
                "64 in one batch": _latency(processes, tokens, 64, [64]),
            }
        finally:
            processes.stop()
    bare = _bare()
    ratio = {
        n: round(throughput[f"redis {n}"] / throughput[f"memory {n}"], 3) for n in ("64", "256")
    }
    rows = [(name, round(rate), f"{rate / bare:.2f}") for name, rate in throughput.items()]
    report.table("Tokens/s of one API process", ("", "tokens/s", "of bare"), rows)
    late = [("floor", floor, ""), *((name, *both) for name, both in latency.items())]
    report.table("Latency, ms", ("", "p50", "p99"), late)
    return {
        "ratio_to_memory": ratio,
        "added_ms_p50": latency["64 in two batches"][0],
        "added_ms_p99": latency["64 in two batches"][1],
        "one_batch_ms": latency["64 in one batch"],
        "one_stream_ms": latency["one stream"],
        "floor_ms": floor,
        "redis_calls_per_step": calls["256"],
        "redis_calls_per_step_64": calls["64"],
        "tokens_s": {name: round(rate) for name, rate in throughput.items()},
        "bare_serialisation_s": round(bare),
    }


def _throughput(processes: Processes, quick: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens per second by path and streams; the replica's calls per step by streams."""
    rounds, rates, calls = 3 if quick else 5, {}, {}
    for streams, tokens in ((64, 2000), (256, 500)):
        if quick:
            tokens //= 4
        end = processes.replica("fake", 0, streams)
        measures = {
            f"{path} {streams}": partial(_rate, port, processes.key, streams, tokens)
            for path, port in processes.ports.items()
        }
        medians, _ = report.median_rounds(measures, rounds)
        rates |= medians
        noted = end()
        calls[str(streams)] = round(noted["calls"] / noted["steps"], 3)
    return rates, calls


def _rate(port: int, key: str, streams: int, tokens: int) -> float:
    """From the first token of all to the last."""
    came = [reader.came()[1] for reader in read_all(port, key, streams, tokens)]
    started = min(min(times.values()) for times in came)
    return streams * tokens / (max(max(times.values()) for times in came) - started)


def _latency(
    processes: Processes, tokens: int, streams: int, batches: list[int]
) -> tuple[float, float]:
    """Milliseconds: median and 99th percentile over all tokens but the first second's."""
    # Replicas aren't in step: theirs are a little longer each, so that they meet and part.
    ends = [
        processes.replica(f"fake-{i}", STEP_S * (1 + i / 50), most)
        for i, most in enumerate(batches)
    ]
    port = processes.ports["redis"]
    readers = read_all(port, processes.key, streams, tokens)
    times = {name: there for end in ends for name, there in end()["times"].items()}
    took = [late for reader in readers for late in _lateness(*reader.came(), times)]
    points = statistics.quantiles(took, n=100)
    return round(points[49], 3), round(points[98], 3)


def _lateness(name: str, came: dict[int, float], times: dict[str, list[float]]) -> list[float]:
    there, warm = times[name], int(1 / STEP_S)
    return [
        (at - there[position - 1]) * 1000
        for position, at in came.items()
        if warm < position <= len(there)
    ]


def _bare() -> float:
    """Events per second of a loop that only serialises them."""
    count, head = 20_000, {"id": "chatcmpl-" + "0" * 28, "created": 0, "model": "chat"}
    started = time.perf_counter()
    for position in range(count):
        choice = CHAT.chunk_choice(0, " token", None, None)
        chunk = head | {"object": CHAT.chunk, "choices": [choice], "usage": None}
        encode(chunk, f"{'0' * 28}:{position}")
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    report.main("delivery", measure, ("fastapi", "sse-starlette", "uvicorn", "redis"))
