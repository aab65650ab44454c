"""`python -m docs.generate.metrics > docs/metrics.md`: each metric of each process."""

import sys
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from api.metrics import ApiMetrics
from gpu_worker.metrics import ReplicaMetrics
from scheduler.metrics import ScalerMetrics
from scheduler.tasks.metrics import registry as tasks

HEAD = """# Metrics

Generated: `python -m docs.generate.metrics > docs/metrics.md`.

Each process serves Prometheus' text format on a port of its own (`LORAPLEX_METRICS_HOST`,
`LORAPLEX_METRICS_PORT`; 0: any free one), the API also at `/metrics` with an operator's key.
`GET /api/v1/metrics/targets` lists them all for Prometheus' `http_sd_configs`, and gives each the
label `process`, replicas also `replica` and `deployment_id`. Besides these there are
prometheus-client's own of the process (`process_*`) and of Python's garbage collector. Only the
leading scaler tells of the platform, so that sums over targets are right.

`COMPOSE_PROFILES=cpu,monitoring` (compose) starts Prometheus with alert rules and Grafana with a
dashboard (`infra/monitoring/`).
"""


def families() -> dict[str, list[Metric]]:
    """Ours, by process."""
    registries: dict[str, CollectorRegistry] = {
        "scaler": ScalerMetrics().registry,
        "replica": ReplicaMetrics().registry(),
        "api": ApiMetrics().registry,
        "task worker": tasks,
    }
    return {name: list(_ours(registry)) for name, registry in registries.items()}


def exported() -> set[str]:
    """Names of samples, as expressions use them."""
    names = set()
    for metric in (metric for each in families().values() for metric in each):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {metric.name + suffix for suffix in suffixes.get(metric.type, [""])}
    return names


def _ours(registry: CollectorRegistry) -> Iterator[Metric]:
    for metric in registry.collect():
        if metric.name.startswith("loraplex_"):
            yield metric


def page() -> str:
    lines = [HEAD]
    for process, metrics in families().items():
        lines += [f"## {process.capitalize()}", "", "| metric | type | meaning |", "|---|---|---|"]
        for metric in metrics:
            name = metric.name + ("_total" if metric.type == "counter" else "")
            lines.append(f"| `{name}` | {metric.type} | {metric.documentation} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page())
