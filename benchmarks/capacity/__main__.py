"""What a token step costs Redis, the network and the API; from it the size of a cell, and how late
tokens are in a fleet of 10,000 replicas and 10^6 streams (simulated, with the measured costs).

`redis`: CPU microseconds and bytes of a replica's step, of each API process that hears of it, of
each token. `api`: of a message, a token, a request. `cell`: what takes the fewest cores for a
stream, no process over `share` of a core. `fleet`: as many cells as hold 10^6 streams, each step of
each replica through its Redis and an API process. `looks`: the real scaler's, over real rows and
lanes, up to 10,000 replicas. docs/capacity.md says what follows from it.
"""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks import report
from benchmarks.capacity import api_cost, redis_cost
from benchmarks.capacity.api_cost import ApiCost
from benchmarks.capacity.cell import Cell, Work, best, cells_for, with_apis
from benchmarks.capacity.look import Installation, LookCost
from benchmarks.capacity.redis_cost import StepCost
from benchmarks.capacity.simulate import Lateness, lateness
from benchmarks.delivery.processes import Processes
from benchmarks.model_store import model_store

SHARE = 0.6  # of a core: what is left is for bursts, and for an API process that goes
STREAMS = 10**6
SIZES = (10, 50, 100)  # replicas of cells that are shown beside the best
LOOKS = ((1, (100, 1000)), (10, (100, 1000)))  # replicas of a deployment, deployments


def measure(quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="capacity-") as folder:
        home = Path(folder)
        processes = Processes(home / "home", model_store())
        try:
            server = _server()
            api = api_cost.measure(processes, server, 10 if quick else 40)
            redis = redis_cost.measure(
                processes.redis, server, processes.redis_url, 1000 if quick else 20_000
            )
            looks = _looks(processes, server, home, 3 if quick else 9)
        finally:
            processes.stop()
    work = Work()
    found = best(work, redis, api, SHARE)
    count = cells_for(STREAMS, found)
    late = lateness(found, work, redis, api, count, 5 if quick else 20)
    sizes = [each for n in SIZES if (each := with_apis(n, work, redis, api, SHARE))]
    _show(redis, api, looks, [found, *sizes], late)
    return {
        "redis": asdict(redis),
        "api": asdict(api),
        "work": asdict(work),
        "share": SHARE,
        "cell": asdict(found),
        "fleet": {"streams": STREAMS, "cells": count, "replicas": count * found.replicas}
        | {"apis": count * found.apis, "lateness_ms": asdict(late)},
        "looks": [asdict(each) for each in looks],
    }


def _server() -> int:
    (found,) = (c for c in psutil.Process().children() if "valkey" in Path(c.cmdline()[0]).name)
    return int(found.pid)


def _looks(processes: Processes, server: int, home: Path, looks: int) -> list[LookCost]:
    found = []
    for each, counts in LOOKS:
        folder = home / f"look-{each}"
        folder.mkdir()
        processes.redis.flushdb()
        fleet = Installation(processes.redis, server, folder, each)
        for count in counts:
            fleet.grow(count)
            found.append(fleet.look(looks))
    return found


def _show(
    redis: StepCost, api: ApiCost, looks: list[LookCost], cells: list[Cell], late: Lateness
) -> None:
    steps = ("a step", "an API process that hears of it", "a token")
    report.table(
        f"Redis (fit within {redis.worst:.0%})",
        ("", "CPU µs", "bytes in", "bytes out"),
        [
            (name, redis.seconds[i] * 1e6, redis.received[i], redis.sent[i])
            for i, name in enumerate(steps)
        ],
    )
    report.table(
        f"API (fit within {api.worst:.0%}; {api.stream_bytes / 1024:.0f} KiB an open stream)",
        ("", "CPU µs"),
        [
            ("a replica's step", api.message_s * 1e6),
            ("a token", api.token_s * 1e6),
            ("a request", api.request_s * 1e6),
            ("a request, at Redis", api.redis_request_s * 1e6),
        ],
    )
    columns = ("replicas", "streams", "apis", "redis", "sent_mb_s", "journal_gb")
    rows = [(*(getattr(c, name) for name in columns), c.cores_a_thousand_streams) for c in cells]
    report.table("Cells, the best first", (*columns, "cores/1000 streams"), rows)
    report.table(
        "The scaler's look",
        ("deployments", "replicas", "s", "of it Redis"),
        [(each.deployments, each.replicas, each.seconds, each.redis_s) for each in looks],
    )
    times = [(late.p50, late.p99, late.worst)]
    report.table("Lateness in the fleet, ms", ("p50", "p99", "worst"), times)


if __name__ == "__main__":
    report.main("capacity", measure, ("redis", "sqlalchemy", "numpy", "uvicorn"))
