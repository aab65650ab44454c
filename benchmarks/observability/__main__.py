"""What metrics, traces of one request in a hundred, and scrapes cost.

`overhead`: the larger one of the two shares below (medians of alternating rounds).
- `overhead_delivery`: tokens/s that an API process delivers from a replica that computes nothing,
  with all of it, against the same with all of it switched off: two platforms, in turns.
- `overhead_engine`: the time of a decode step of a real engine in a real replica's loop.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.delivery.processes import Processes
from benchmarks.delivery.readers import read_all
from benchmarks.model_store import model_store
from benchmarks.observability.engine_steps import EngineSteps
from loraplex.embedded.ports import free_port

STREAMS = 64


def measure(quick: bool) -> dict[str, Any]:
    collector = free_port()
    on = {
        "LORAPLEX_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "LORAPLEX_TRACE_SAMPLE": "0.01",
    }
    off = {"LORAPLEX_METRICS": "false", "LORAPLEX_OTLP_ENDPOINT": ""}
    with tempfile.TemporaryDirectory(prefix="observability-") as folder:
        started = []
        try:
            for name, settings in (("on", on), ("off", off)):
                started.append(Processes(Path(folder) / name, model_store(), **settings))
            observed, plain = started
            module = "benchmarks.observability.collector"
            observed.python(module, "--port", str(collector), "--redis-url", observed.redis_url)
            delivery = _delivery(observed, plain, quick)
            steps = _steps(plain.redis_url, quick)
        finally:
            for processes in started:
                processes.stop()
    by_delivery = 1 - delivery["on"] / delivery["off"]
    by_engine = steps["on"] / steps["off"] - 1
    rows = [
        ("delivery, tokens/s", delivery["on"], delivery["off"], by_delivery),
        ("engine step, ms", 1000 * steps["on"], 1000 * steps["off"], by_engine),
    ]
    report.table("Metrics and traces", ("", "on", "off", "overhead"), rows)
    return {
        "overhead": round(max(by_delivery, by_engine), 4),
        "overhead_delivery": round(by_delivery, 4),
        "overhead_engine": round(by_engine, 4),
        "delivery_tokens_s": {name: round(rate) for name, rate in delivery.items()},
        "step_ms": {name: round(1000 * seconds, 3) for name, seconds in steps.items()},
    }


def _delivery(observed: Processes, plain: Processes, quick: bool) -> dict[str, float]:
    tokens, rounds = (500, 5) if quick else (1500, 11)
    ends = [each.replica("fake", 0, STREAMS) for each in (observed, plain)]
    measures = {
        name: partial(_rate, each.ports["redis"], each.key, tokens)
        for name, each in (("on", observed), ("off", plain))
    }
    for rate in measures.values():
        rate()  # once without counting: connections, caches
    medians, _ = report.median_rounds(measures, rounds)
    for end in ends:
        end()
    return medians


def _rate(port: int, key: str, tokens: int) -> float:
    """From the first token of all to the last."""
    came = [reader.came()[1] for reader in read_all(port, key, STREAMS, tokens)]
    started = min(min(times.values()) for times in came)
    return STREAMS * tokens / (max(max(times.values()) for times in came) - started)


def _steps(redis_url: str, quick: bool) -> dict[str, float]:
    engine = EngineSteps(redis_url)
    tokens, rounds = (48, 5) if quick else (96, 11)
    measures = {
        "on": partial(engine.seconds, tokens, observed=True),
        "off": partial(engine.seconds, tokens, observed=False),
    }
    for seconds in measures.values():
        seconds()
    _, values = report.median_rounds(measures, rounds)
    return {name: statistics.median(each) for name, each in values.items()}


if __name__ == "__main__":
    report.main("observability", measure, ("prometheus-client", "opentelemetry-sdk", "fastapi"))
