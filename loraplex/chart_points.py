"""Chart points in the database: added to by the leading scaler, read by the API."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, or_
from sqlmodel import Session, col, select

from loraplex import charts
from loraplex.entities import ChartPoint, PointKind

_OLD_S = 30.0  # and what clocks may differ by


def add_points(
    session: Session, kind: PointKind, new: Mapping[tuple[str, int], Mapping[str, Any]]
) -> None:
    """To what is there, in each resolution. `new`: deployment and second → figures. Doesn't
    commit."""
    sums: dict[tuple[str, int, int], charts.Figures] = {}
    for (deployment, at), figures in new.items():
        for step_s in charts.KEPT_S:
            key = (deployment, step_s, charts.begin(at, step_s))
            charts.add(sums.setdefault(key, {}), figures)
    if not sums:
        return
    deployments, steps, times = (set(each) for each in zip(*sums, strict=True))
    # Some more than are needed: a list of each column is found by the key, one of rows by a scan.
    wanted = (
        select(ChartPoint)
        .where(
            col(ChartPoint.deployment_id).in_(deployments),
            col(ChartPoint.step_s).in_(steps),
            ChartPoint.kind == kind.value,
            col(ChartPoint.at).in_(times),
        )
        .with_for_update()
    )
    known = {(row.deployment_id, row.step_s, row.at): row for row in session.exec(wanted)}
    for key, figures in sums.items():
        row = known.get(key)
        if row is None:
            deployment, step_s, at = key
            row = ChartPoint(
                deployment_id=deployment, step_s=step_s, at=at, kind=kind.value, figures=figures
            )
        else:
            row.figures = charts.add(charts.add({}, row.figures), figures)  # a new value: written
        session.add(row)


def read(session: Session, deployment: str, since: int, until: int, step_s: int) -> Any:
    """Series of a deployment; see `charts.columns`."""
    wanted = select(ChartPoint.deployment_id, ChartPoint.at, ChartPoint.figures).where(
        col(ChartPoint.deployment_id).in_((deployment, charts.LOOKED)),
        ChartPoint.step_s == step_s,
        col(ChartPoint.kind).in_([kind.value for kind in PointKind]),
        ChartPoint.at >= charts.begin(since, step_s),
        ChartPoint.at < until,
    )
    rows = session.exec(wanted).all()
    points = ((at, figures) for name, at, figures in rows if name == deployment)
    looked = {at: figures["s"] for name, at, figures in rows if name == charts.LOOKED}
    return charts.columns(since, until, step_s, points, looked)


def latest(session: Session, deployments: Sequence[str], now: float) -> dict[str, Any] | None:
    """By deployment, the values of the latest point that is complete, where something happened.
    None: nobody has looked for a while."""
    at = session.scalar(
        select(func.max(ChartPoint.at)).where(
            ChartPoint.deployment_id == charts.LOOKED,
            ChartPoint.step_s == charts.FINE_S,
            ChartPoint.kind == PointKind.LOAD.value,
        )
    )
    if at is None or at < now - _OLD_S:
        return None
    wanted = select(ChartPoint.deployment_id, ChartPoint.figures).where(
        col(ChartPoint.deployment_id).in_([*deployments, charts.LOOKED]),
        ChartPoint.step_s == charts.FINE_S,
        col(ChartPoint.kind).in_([kind.value for kind in PointKind]),
        ChartPoint.at == at,
    )
    sums: dict[str, charts.Figures] = {}
    for name, figures in session.exec(wanted):
        charts.add(sums.setdefault(name, {}), figures)
    looked = sums.pop(charts.LOOKED, None)
    looked_s = looked["s"] if looked else None
    return {name: charts.values(each, charts.FINE_S, looked_s) for name, each in sums.items()}


def prune(session: Session, now: float) -> None:
    """What is older than it is kept."""
    old = [
        and_(col(ChartPoint.step_s) == step_s, col(ChartPoint.at) < now - kept_s)
        for step_s, kept_s in charts.KEPT_S.items()
    ]
    session.execute(delete(ChartPoint).where(or_(*old)))
