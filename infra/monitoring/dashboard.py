"""Makes grafana/dashboards/loraplex.json: `python infra/monitoring/dashboard.py`."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "grafana" / "dashboards" / "loraplex.json"
OF = '{deployment=~"$deployment"}'
WIDTH, HEIGHT = 8, 8  # of Grafana's 24 columns


def _quantiles(metric: str) -> list[tuple[str, str]]:
    buckets = f"sum by (deployment, le) (rate({metric}_bucket{OF}[$__rate_interval]))"
    return [
        (f"histogram_quantile({q}, {buckets})", f"{{{{deployment}}}} p{q * 100:g}")
        for q in (0.5, 0.95)
    ]


def _rate(metric: str, by: str, of: str = OF) -> list[tuple[str, str]]:
    return [(f"sum by ({by}) (rate({metric}{of}[$__rate_interval]))", f"{{{{{by}}}}}")]


# Title, unit of Grafana, (expression, legend) of its lines.
PANELS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("Requests per second", "reqps", _rate("loraplex_requests_total", "deployment")),
    (
        "Throughput (generated tokens per second)",
        "short",
        _rate("loraplex_generated_tokens_total", "replica", ""),
    ),
    ("Inference time", "s", _quantiles("loraplex_inference_seconds")),
    ("Queue duration", "s", _quantiles("loraplex_queue_duration_seconds")),
    (
        "Replicas",
        "short",
        [(f"sum by (deployment, status) (loraplex_replicas{OF})", "{{deployment}} {{status}}")],
    ),
    (
        "GPU utilization (CPU where there is none)",
        "percentunit",
        [
            ("loraplex_gpu_utilization > 0", "GPU {{replica}}"),
            ("loraplex_cpu_utilization > 0", "CPU {{replica}}"),
        ],
    ),
    ("Time to first token", "s", _quantiles("loraplex_ttft_seconds")),
    (
        "Time between tokens",
        "s",
        [
            (
                "histogram_quantile(0.95, sum by (replica, le) "
                "(rate(loraplex_inter_token_seconds_bucket[$__rate_interval])))",
                "{{replica}} p95",
            )
        ],
    ),
    ("Backlog", "short", [(f"sum by (deployment) (loraplex_backlog{OF})", "{{deployment}}")]),
    (
        "Sequences in a step",
        "short",
        [
            (
                "rate(loraplex_batch_size_sum[$__rate_interval]) "
                "/ rate(loraplex_batch_size_count[$__rate_interval])",
                "{{replica}}",
            )
        ],
    ),
    ("Adapters resident", "short", [("loraplex_adapters_resident", "{{replica}}")]),
    (
        "KV cache in use",
        "percentunit",
        [("loraplex_kv_blocks_used / loraplex_kv_blocks", "{{replica}}")],
    ),
    ("Prefix cache hits", "percentunit", [("loraplex_prefix_cache_hit_ratio", "{{replica}}")]),
    (
        "Scaling decisions",
        "short",
        [
            (
                "sum by (reason) "
                f"(increase(loraplex_scaler_decisions_total{OF}[$__rate_interval]))",
                "{{reason}}",
            )
        ],
    ),
    ("HTTP responses", "reqps", _rate("loraplex_http_requests_total", "status", "")),
]


def dashboard() -> dict[str, Any]:
    """As Grafana 11 reads it."""
    source = {"type": "prometheus", "uid": "prometheus"}
    panels = [
        {
            "id": number + 1,
            "title": title,
            "type": "timeseries",
            "datasource": source,
            "gridPos": {
                "x": number % 3 * WIDTH,
                "y": number // 3 * HEIGHT,
                "w": WIDTH,
                "h": HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(65 + i), "datasource": source, "expr": expr, "legendFormat": legend}
                for i, (expr, legend) in enumerate(lines)
            ],
        }
        for number, (title, unit, lines) in enumerate(PANELS)
    ]
    variable = {
        "name": "deployment",
        "type": "query",
        "datasource": source,
        "query": "label_values(loraplex_backlog, deployment)",
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
    return {
        "uid": "loraplex",
        "title": "Loraplex",
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": panels,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(dashboard(), indent=1) + "\n")
