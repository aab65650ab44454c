"""What answers took: from the lanes, where each is recorded once, into the database, once.

In this order: store (what is stored already is skipped), settle with the limiter (what is settled
already is skipped), drop from the lane. Whoever dies in between, the next one begins anew.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from loraplex import charts
from loraplex.broker.cancellation import request_of
from loraplex.broker.interface import SeenLane, StoredUsage
from loraplex.broker.scaler import ScalerBroker
from loraplex.chart_points import add_points
from loraplex.entities import PointKind, Totals, UsageRecord
from loraplex.keys import Lane
from loraplex.totals import Answer, count

log = logging.getLogger(__name__)

MOST = 1000  # records a transaction
_COUNTED = tuple(field.name for field in fields(Answer))
_MOST_PAGES = 5  # a lane and a look: the others wait


class UsageCollector:
    def __init__(self, database: Engine, broker: ScalerBroker) -> None:
        self._database = database
        self._broker = broker

    def run(self, lanes: Mapping[Lane, SeenLane]) -> None:
        """Raises when Redis or the database is away: then it stays on the lanes."""
        for lane, seen in lanes.items():
            for _ in range(min(_MOST_PAGES, -(-seen.usage // MOST))):
                self._collect(lane)

    def _collect(self, lane: Lane) -> None:
        found = self._broker.usage(lane, MOST)
        if found.readable:
            self._store(lane, found.readable)
            self._broker.settle(found.readable)
        self._broker.drop_usage(lane, found.entries)

    def _store(self, lane: Lane, records: Iterable[StoredUsage]) -> None:
        insert = postgresql.insert if self._database.dialect.name == "postgresql" else sqlite.insert
        wanted = insert(UsageRecord.__table__).on_conflict_do_nothing()  # type: ignore[attr-defined]
        rows = {str(row["id"]): row for row in (_row(lane, each) for each in records)}
        with Session(self._database) as session:
            new = session.execute(wanted.returning(col(UsageRecord.id)), list(rows.values()))
            stored = [rows[each] for each in new.scalars()]
            self._count(session, lane, stored)
            add_points(session, PointKind.ANSWERS, _points(lane, stored))
            session.commit()

    def _count(self, session: Session, lane: Lane, rows: Iterable[dict[str, Any]]) -> None:
        """With what was stored just now, and with that alone: each answer is counted once."""
        answers: dict[str, list[Answer]] = defaultdict(list)
        for row in rows:
            answers[row["tenant_id"]].append(_answer(row))
        for tenant, of_tenant in answers.items():
            key = (lane.deployment_id, tenant)
            totals = session.get(Totals, key, with_for_update=True)
            if totals is None:
                totals = Totals(deployment_id=key[0], tenant_id=tenant, counted={})
            totals.counted = count(totals.counted, of_tenant)
            session.add(totals)


def _points(lane: Lane, rows: Iterable[dict[str, Any]]) -> dict[tuple[str, int], charts.Figures]:
    found: dict[tuple[str, int], charts.Figures] = {}
    for row in rows:
        figures = charts.of_answer(_answer(row), first=row["first"])
        charts.add(found.setdefault((lane.deployment_id, row["at"]), {}), figures)
    return found


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(**{name: row[name] for name in _COUNTED})


def _row(lane: Lane, stored: StoredUsage) -> dict[str, Any]:
    usage = stored.usage
    request = request_of(usage.answer)
    return {
        "id": f"{usage.answer}@{stored.job}",
        "request": request,
        "first": usage.answer == request,
        "at": int(usage.arrived_at + usage.duration_s),
        "tenant_id": usage.tenant,
        "key_id": usage.account.key,
        "deployment_id": lane.deployment_id,
        "adapter": usage.account.adapter,
        "prompt_tokens": usage.prompt,
        "cached_tokens": usage.cached,
        "completion_tokens": usage.output,
        "queue_s": usage.queue_s,
        "first_token_s": usage.first_token_s,
        "duration_s": usage.duration_s,
        "status": usage.status,
        "error": usage.error,
    }
