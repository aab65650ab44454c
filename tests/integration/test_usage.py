"""One usage record for each answer, whatever happens to it: from real lanes to a real database."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, delete
from sqlmodel import Session, select

from gpu_worker.metering import Meter
from gpu_worker.metrics import Tally
from loraplex.broker.interface import TakenJob
from loraplex.broker.scaler import ScalerBroker
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.database import connect
from loraplex.entities import Totals, UsageRecord
from loraplex.keys import limits_prefix
from loraplex.messages import Account, TokenEvent, encode
from loraplex.totals import from_json
from scheduler.usage import UsageCollector
from tests.integration.test_broker import LANE, WAITER, Api, die, report, worker


@pytest.fixture
def api(valkey_url: str, valkey: "redis.Redis") -> Api:
    return Api(valkey_url)


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    with Session(engine) as session:
        session.execute(delete(UsageRecord))
        session.execute(delete(Totals))
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def scaler(valkey: "redis.Redis") -> ScalerBroker:
    return ScalerBroker(valkey, "scaler-1")


def stored(database: Engine, scaler: ScalerBroker, times: int = 2) -> dict[str, UsageRecord]:
    """What is in the database when the leaders of some looks have collected."""
    for _ in range(times):
        UsageCollector(database, scaler).run(scaler.observe([LANE]))
    with Session(database, expire_on_commit=False) as session:
        rows = session.exec(select(UsageRecord)).all()
        totals = from_json(*session.exec(select(Totals.counted)))
    assert totals.ended == Counter(row.status for row in rows), "each is counted once"
    tokens = totals.histograms["completion_tokens"].total
    assert tokens == sum(row.completion_tokens for row in rows)
    assert scaler.observe([LANE])[LANE].usage == 0
    return {row.request: row for row in rows}


def serve(broker: WorkerBroker, *events: TokenEvent, wanted: int | None = None) -> None:
    """As a replica does: take what there is, resume it, commit the events."""
    taken = broker.take(8)
    earlier = broker.journalled([each for each in taken if each.reclaimed])
    meter, result = Meter(Tally()), StepResult()
    for each in taken:
        meter.begin(each, earlier.get(each.job.request))
    for event in events:
        _emit(meter, result, event, taken, wanted)
    broker.commit(result, report(broker.incarnation[:-2]))


def _emit(
    meter: Meter,
    result: StepResult,
    event: TokenEvent,
    taken: list[TakenJob],
    wanted: int | None,
) -> None:
    entry = next(each.entry for each in taken if each.job.request == event.request)
    meter.produced(event)
    usage = encode(meter.end(event, wanted)) if event.finish else b""
    result.add("api-1", event, entry, usage)


def test_an_answer_leaves_one_record(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    api.enqueue("r1")
    events = (TokenEvent("r1", 0, [5], cached=1), TokenEvent("r1", 1, [6, 7], "length"))
    serve(worker(valkey, "a"), *events)
    (row,) = stored(database, scaler).values()
    found = (row.prompt_tokens, row.cached_tokens, row.completion_tokens, row.status, row.tenant_id)
    assert found == (2, 1, 3, "length", "dev")
    assert row.deployment_id == LANE.deployment_id and row.first
    assert row.first_token_s is not None
    assert 0 <= row.queue_s <= row.first_token_s <= row.duration_s


def test_also_through_a_takeover(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    """The dead one's tokens count once, and its first token is the answer's."""
    api.enqueue("r1")
    dead, heir = worker(valkey, "a"), worker(valkey, "b")
    serve(dead, TokenEvent("r1", 0, [5]), TokenEvent("r1", 1, [6]))
    die(valkey, dead)
    serve(heir, TokenEvent("r1", 2, [7], "stop"))
    (row,) = stored(database, scaler).values()
    assert (row.prompt_tokens, row.completion_tokens, row.status) == (2, 3, "stop")
    assert row.first_token_s is not None and row.queue_s <= row.first_token_s <= row.duration_s


def test_who_was_fenced_records_nothing(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    api.enqueue("r1")
    frozen, heir = worker(valkey, "a"), worker(valkey, "b")
    (taken,) = frozen.take(1)
    meter, result = Meter(Tally()), StepResult()
    meter.begin(taken)
    _emit(meter, result, TokenEvent("r1", 0, [5, 6, 7, 8], "stop"), [taken], None)
    die(valkey, frozen)
    serve(heir, TokenEvent("r1", 0, [5], "stop"))
    with pytest.raises(Exception, match="a:0"):
        frozen.commit(result, report("a"))
    (row,) = stored(database, scaler).values()
    assert row.completion_tokens == 1


def test_a_job_that_ends_twice_is_recorded_once(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    """A reply can be lost, and the same commit be sent again."""
    api.enqueue("r1")
    broker = worker(valkey, "a")
    (taken,) = broker.take(1)
    meter, result = Meter(Tally()), StepResult()
    meter.begin(taken)
    _emit(meter, result, TokenEvent("r1", 0, [5], "stop"), [taken], None)
    for _ in range(2):
        broker.commit(result, report("a"))
    assert len(stored(database, scaler)) == 1


def test_a_scaler_that_dies_before_it_drops_them_stores_nothing_twice(
    valkey: "redis.Redis",
    api: Api,
    scaler: ScalerBroker,
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        api.enqueue(f"r{number}")
    serve(worker(valkey, "a"), *(TokenEvent(f"r{n}", 0, [5], "stop") for n in range(3)))

    def died(*_: Any) -> None:
        raise ConnectionError

    with monkeypatch.context() as dying:
        dying.setattr(ScalerBroker, "drop_usage", died)
        with pytest.raises(ConnectionError):
            UsageCollector(database, scaler).run(scaler.observe([LANE]))
    assert len(stored(database, scaler)) == 3


def test_what_no_replica_ran_is_recorded_and_costs_nothing(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    gone = api.enqueue("gone")
    assert api.leave(gone, "gone", WAITER, unserved=True) == "stopped"
    api.enqueue("stranded")
    assert scaler.answer_stranded(LANE, "deployment_stopped", "It was stopped.") == 1
    rows = stored(database, scaler)
    found = {name: (row.status, row.error, row.completion_tokens) for name, row in rows.items()}
    assert found == {
        "gone": ("cancelled", "", 0),
        "stranded": ("error", "deployment_stopped", 0),
    }
    assert all(row.prompt_tokens == 0 for row in rows.values())


def test_an_answer_that_came_to_a_stop_string_is_charged_up_to_there(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    api.enqueue("r1")
    events = (TokenEvent("r1", 0, [5, 6, 7, 8, 9]), TokenEvent("r1", 5, [], "cancelled"))
    serve(worker(valkey, "a"), *events, wanted=3)
    (row,) = stored(database, scaler).values()
    assert (row.completion_tokens, row.status) == (3, "stop")


def test_the_collector_settles_what_was_reserved(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker, database: Engine
) -> None:
    """Where the API process that would do so at once is gone."""
    prefix = limits_prefix("dev")
    valkey.hset(prefix + "reserved", "res-1", '[["", 500, 500, 60, 0, 1]]')
    valkey.zadd(prefix + "held", {"res-1": 2e12})
    state = {"req": 0, "tok": 1000, "day": 1, "used": 500, "running": 1}
    valkey.hset(prefix + "scope:", mapping=state)  # type: ignore[arg-type]
    api.account = Account("key-1", "", True, "res-1")
    api.enqueue("r1")
    serve(worker(valkey, "a"), TokenEvent("r1", 0, [5, 6, 7], "stop"))
    (row,) = stored(database, scaler).values()
    assert row.key_id == "key-1"
    left = {name.decode(): int(value) for name, value in valkey.hgetall(prefix + "scope:").items()}
    assert left == {"req": 0, "tok": 1000 - 495 * 60, "day": 1, "used": 5, "running": 0}
    assert not valkey.exists(prefix + "reserved", prefix + "held")
