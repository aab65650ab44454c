"""Dashboards and alerts ask for metrics that there are, and Prometheus understands them."""

import json
import re
import subprocess
from pathlib import Path

import yaml

from docs.generate import metrics
from infra.monitoring import dashboard
from tests import programs

FOLDER = Path(__file__).parents[2] / "infra" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
_NAME = re.compile(r"loraplex_[a-z_]+")


def _asked(text: str) -> set[str]:
    return set(_NAME.findall(text))


def test_the_dashboard_is_what_is_made() -> None:
    assert json.loads(dashboard.FILE.read_text()) == dashboard.dashboard()


def test_all_that_is_asked_for_exists() -> None:
    exported = metrics.exported()
    assert {"loraplex_requests_total", "loraplex_ttft_seconds_bucket"} <= exported
    panels = json.dumps(dashboard.dashboard()["panels"])
    rules = [
        rule["expr"]
        for group in yaml.safe_load(ALERTS.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) >= 8
    assert _asked(panels) <= exported
    assert _asked(" ".join(rules)) <= exported


def test_prometheus_understands_them(tmp_path: Path) -> None:
    """Its own tool (Debian's package `prometheus`), and what the alerts do with a given past."""
    promtool = programs.need("promtool", package="prometheus")
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    past = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": "loraplex_scaler_leads", "values": "1x5 0x10"},
                    {"series": 'loraplex_deployments{status="errored"}', "values": "0x15"},
                    {
                        "series": 'loraplex_oldest_wait_seconds{deployment="chat"}',
                        "values": "0x5 90x10",
                    },
                ],
                "alert_rule_test": [
                    {"eval_time": "4m", "alertname": "NoLeadingScaler", "exp_alerts": []},
                    {
                        "eval_time": "10m",
                        "alertname": "NoLeadingScaler",
                        "exp_alerts": [{"exp_labels": {"severity": "critical"}}],
                    },
                    {"eval_time": "10m", "alertname": "DeploymentErrored", "exp_alerts": []},
                    {
                        "eval_time": "10m",
                        "alertname": "LongWait",
                        "exp_alerts": [
                            {"exp_labels": {"severity": "warning", "deployment": "chat"}}
                        ],
                    },
                ],
            }
        ],
    }
    for test in past["tests"][0]["alert_rule_test"]:  # type: ignore[index]
        for alert in test["exp_alerts"]:
            alert["exp_annotations"] = _annotations(test["alertname"])
    (tmp_path / "past.yml").write_text(yaml.safe_dump(past))
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "past.yml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def _annotations(name: str) -> dict[str, str]:
    """As they are shown, of those tests."""
    rules = [r for g in yaml.safe_load(ALERTS.read_text())["groups"] for r in g["rules"]]
    told: dict[str, str] = next(r["annotations"] for r in rules if r["alert"] == name)
    values = {"{{ $labels.deployment }}": "chat", "{{ $value | humanizeDuration }}": "1m 30s"}
    for template, value in values.items():
        told = {key: text.replace(template, value) for key, text in told.items()}
    return told
