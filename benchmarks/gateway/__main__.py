"""What the gateway costs: authenticated, limited, non-streaming chat calls.

`ratio_to_bare_route`: requests/s of one API process whose engine has every answer at once, over
those of one FastAPI route that takes and gives the same bodies, alternating.
`limiter_added_ms_p99`: of the limiter's call in two scopes; `limiter_rate_error`: of the enforced
rate with 1,000 concurrent callers.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlmodel import Session

from benchmarks import report
from benchmarks.delivery.processes import Processes
from benchmarks.gateway.limiter import added_ms_p99, rate_error
from benchmarks.gateway.load import Load, load
from benchmarks.model_store import model_store
from loraplex.apikeys import FIRST_TENANT
from loraplex.database import connect
from loraplex.entities import Plan, Tenant

CALLERS = 32


def measure(quick: bool) -> dict[str, Any]:
    seconds, rounds = (3.0, 3) if quick else (8.0, 5)
    with tempfile.TemporaryDirectory(prefix="gateway-") as folder:
        home = Path(folder) / "home"
        processes = Processes(home, model_store())
        try:
            _limit(f"sqlite:///{home / 'loraplex.db'}")
            ports = {"gateway": _api(processes), "bare route": _api(processes, "--bare")}
            loads: dict[str, list[Load]] = {name: [] for name in ports}
            for port in ports.values():
                load(port, processes.key, CALLERS, 1.0)  # warm
            for _ in range(rounds):
                for name, port in ports.items():
                    loads[name].append(load(port, processes.key, CALLERS, seconds))
            url = processes.redis_url
            added = asyncio.run(added_ms_p99(url, 2000 if quick else 20_000))
            error = asyncio.run(rate_error(url, 1000, 5 if quick else 20))
        finally:
            processes.stop()
    best = {
        name: sorted(each, key=lambda x: x.requests_s)[len(each) // 2]
        for name, each in loads.items()
    }
    rows = [(n, each.requests_s, each.p50_ms, each.p99_ms) for n, each in best.items()]
    report.table(
        f"{CALLERS} callers, one API process", ("", "requests/s", "p50 ms", "p99 ms"), rows
    )
    return {
        "ratio_to_bare_route": round(best["gateway"].requests_s / best["bare route"].requests_s, 3),
        "limiter_added_ms_p99": round(added, 3),
        "limiter_rate_error": round(error, 5),
        "requests_s": {name: round(each.requests_s) for name, each in best.items()},
        "p99_ms": {name: round(each.p99_ms, 2) for name, each in best.items()},
    }


def _api(processes: Processes, *options: str) -> int:
    return processes.serve([sys.executable, "-m", "benchmarks.gateway.fake_api", *options])


def _limit(database: str) -> None:
    """A plan with all limits, out of reach."""
    with Session(connect(database)) as session:
        session.add(
            Plan(
                id="wide",
                requests_per_min=10**8,
                tokens_per_min=10**9,
                tokens_per_day=10**9,
                concurrent=10**6,
            )
        )
        session.flush()
        session.get_one(Tenant, FIRST_TENANT).plan_id = "wide"
        session.commit()


if __name__ == "__main__":
    report.main("gateway", measure, ("fastapi", "uvicorn", "redis"))
