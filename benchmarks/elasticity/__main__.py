"""`python -m benchmarks.elasticity [--quick]`: the scaling law against others, and the reconciler
against faults. All in virtual time: a busy machine changes nothing but how long it takes."""

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.elasticity import traces
from benchmarks.elasticity.faults import run_faults
from benchmarks.elasticity.frontier import Point, cheapest, dominating
from benchmarks.elasticity.judge import OURS, judge_all, load
from benchmarks.elasticity.plot import draw
from benchmarks.elasticity.shared_fleet import judge_fleet
from benchmarks.elasticity.tick import measure_tick
from benchmarks.report import RESULTS, publish, table

SEEDS, QUICK_SEEDS = 10_000, 200
POINTS = RESULTS / "elasticity_points.csv"
QUICK_TRACES = ("azure_conv", "code_completion", "flash_crowd", "hourly")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elasticity")
    parser.add_argument("--quick", action="store_true", help="within five minutes")
    parser.add_argument("--resume", action="store_true", help="keep the traces in the points' file")
    flags = parser.parse_args()
    quick = flags.quick
    load_before = os.getloadavg()[0]
    names = QUICK_TRACES if quick else (*traces.TUNING, *traces.HELD_OUT)
    found = read_points(POINTS) if flags.resume else {}
    for name, points in judge_all([n for n in names if n not in found], quick=quick):
        found[name] = points
        _show(name, points)
        if not quick:
            write_points(found, POINTS)
    result = verdict(found)
    result |= run_faults(QUICK_SEEDS if quick else SEEDS)
    result["tick"] = measure_tick(1000, 20 if quick else 200)
    result["shared_fleet"] = judge_fleet(quick=quick)
    if not quick:
        draw(found, RESULTS / "elasticity.svg")
    _summary(result)
    publish("elasticity", result, ["msgspec", "sqlmodel", "redis"], load_before, save=not quick)


def verdict(found: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """What the curves say, by the keys of the result."""
    dominated: dict[str, list[str]] = {}
    cost_at_best: dict[str, float | None] = {}
    starts_over: dict[str, float | None] = {}
    default: dict[str, float] = {}
    for name, points in found.items():
        ours = [p for p in points if p.law == OURS]
        others = [p for p in points if p.law != OURS]
        better = dominating(others, ours)
        if better:
            dominated[name] = [f"{p.law} {p.setting}" for p in better]
        best = _best(others)
        mine = cheapest(ours, best.within)
        cost_at_best[name] = mine and round(mine.cost / best.cost, 3)
        starts_over[name] = mine and round(mine.starts / max(1, best.starts), 3)
        arrivals, seconds, _ = load(name)
        if len(arrivals) > seconds / 60:
            default[name] = round(next(p.cost for p in ours if p.default), 3)
    return {
        "traces_dominated_by_a_baseline": len(dominated),
        "dominating": dominated,
        "cost_at_best_slo": cost_at_best,
        "cold_starts_over_best_baseline": starts_over,
        "worst_cost_over_clairvoyant": max(default.values()),
        "cost_over_clairvoyant": default,
    }


def write_points(found: Mapping[str, Sequence[Point]], file: Path) -> None:
    """One line for each law at each setting on each trace."""
    names = [field.name for field in fields(Point)]
    with file.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["trace", *names])
        for trace, points in found.items():
            for point in points:
                values = (getattr(point, name) for name in names)
                shown = (round(v, 6) if isinstance(v, float) else v for v in values)
                rows.writerow([trace, *shown])


def read_points(file: Path) -> dict[str, list[Point]]:
    """What `write_points` wrote: of a run that was cut off."""
    found: dict[str, list[Point]] = {}
    with file.open(newline="") as opened:
        for row in csv.DictReader(opened):
            point = msgspec.convert(row, Point, strict=False)
            found.setdefault(row["trace"], []).append(point)
    return found


def _best(others: Sequence[Point]) -> Point:
    """Of the documented defaults, the one with the most requests in time, and of these the
    cheapest."""
    defaults = [p for p in others if p.default]
    most = max(p.within for p in defaults)
    return min((p for p in defaults if p.within >= most), key=lambda p: p.cost)


def _show(name: str, points: Sequence[Point]) -> None:
    rows = [
        (p.law, p.setting, f"{p.cost:.2f}", f"{100 * p.within:.2f}", f"{p.wait_p95:.1f}", p.starts)
        for p in points
    ]
    columns = ("law", "setting", "cost/clairvoyant", "% ≤ 10 s", "p95 s", "cold starts")
    table(name, columns, rows)


def _summary(result: Mapping[str, Any]) -> None:
    rows = [
        (name, cost, result["cold_starts_over_best_baseline"][name])
        for name, cost in result["cost_at_best_slo"].items()
    ]
    title = "At the best baseline's share of requests in time, ours over it"
    table(title, ("trace", "cost", "cold starts"), rows)
    shown = ("seeds", "double_starts", "lost_wakeups", "stuck", "below_min", "requests")
    table("Faults", shown, [[result[key] for key in shown]])
    fleet = [
        (f["law"], f["setting"], f"{100 * f['within']:.1f}", f"{f['wait_p95']:.0f}", f["starts"])
        for f in result["shared_fleet"]
    ]
    columns = ("law", "setting", "% ≤ 10 s", "p95 s", "cold starts")
    table("Many deployments on one fleet", columns, fleet)
    table("A look at 1,000 deployments", tuple(result["tick"]), [list(result["tick"].values())])


if __name__ == "__main__":
    main()
