"""What every benchmark shares: its command line, its table, its line of JSON, its result file."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def main(name: str, measure: Callable[[bool], dict[str, Any]], packages: Sequence[str]) -> None:
    """Run `measure(quick)`, whose keys are the benchmark's result, and report it."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="a rough answer within five minutes")
    quick = parser.parse_args().quick
    load = os.getloadavg()[0]
    publish(name, measure(quick), packages, load, save=not quick)


def publish(
    name: str, result: dict[str, Any], packages: Sequence[str], load: float, *, save: bool
) -> None:
    """Print the result as the last line; write it, with where and when it was measured."""
    if save:
        facts = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": _commit(),
            "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "load_before": round(load, 2)},
            "versions": {p: importlib.metadata.version(p) for p in packages},
        }
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(result | facts, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in [columns, *cells]
    ]
    sys.stdout.write("\n".join(["", title, *lines, ""]))
    sys.stdout.flush()


def median_rounds(
    measures: dict[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Each measure in turn, `rounds` times: medians, and all values. A drift of the machine then
    meets all of them alike."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
    return {name: statistics.median(v) for name, v in values.items()}, values


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return model or platform.processor()
