"""The delivery protocol against a real Valkey: what the Lua scripts promise."""

import asyncio
from collections.abc import Iterator

import pytest
import redis

from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import UnfitRedis, check, connect_async
from loraplex.broker.interface import BacklogFull, Enqueued, Fenced, GateShut
from loraplex.broker.scaler import ScalerBroker
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.keys import Lane, reply_channel
from loraplex.messages import Cancel, Job, ReplicaReport, Sampling, TokenEvent, decode_step

LANE = Lane("org/base", "dep-1")


def job(name: str) -> Job:
    return Job(name, "api-1", "dev", None, [1, 2], Sampling(8, 0), 2e9)


def report(replica: str) -> ReplicaReport:
    return ReplicaReport(replica, "ready", 0.0)


class Api:
    """The asynchronous side, driven from synchronous tests."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _run(self, method: str, *arguments: object) -> object:
        async def call() -> object:
            broker = ApiBroker(connect_async(self.url), "api-1")
            try:
                return await getattr(broker, method)(*arguments)
            finally:
                await broker.aclose()

        return asyncio.run(call())

    def enqueue(self, name: str, bound: int = 100) -> Enqueued:
        result = self._run("enqueue", LANE, job(name), bound)
        assert isinstance(result, Enqueued)
        return result

    def cancel(self, entry: str, name: str) -> None:
        self._run("cancel", LANE, entry, name)

    def journalled(self, entry: str, name: str) -> list[TokenEvent]:
        events = self._run("journalled", LANE, entry, name)
        assert isinstance(events, list)
        return events


@pytest.fixture
def api(valkey_url: str, valkey: "redis.Redis") -> Api:
    return Api(valkey_url)


def worker(valkey: "redis.Redis", name: str) -> WorkerBroker:
    broker = WorkerBroker(valkey, LANE, f"{name}:0")
    broker.register(report(name))
    return broker


def die(valkey: "redis.Redis", broker: WorkerBroker) -> None:
    """Its lease runs out: nobody renews it."""
    valkey.delete(LANE.lease_prefix + broker.incarnation)


def commit(broker: WorkerBroker, entry: str, *events: TokenEvent) -> None:
    result = StepResult()
    for event in events:
        result.add("api-1", event, entry)
    broker.commit(result, report(broker.incarnation[:-2]))


@pytest.fixture
def scaler(valkey: "redis.Redis") -> Iterator[ScalerBroker]:
    yield ScalerBroker(valkey, "scaler-1")


def test_a_job_goes_to_one_replica_and_its_tokens_to_channel_and_journal(
    valkey: "redis.Redis", api: Api
) -> None:
    first, second = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1").entry
    listener = valkey.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(reply_channel("api-1"))
    listener.get_message(timeout=1)
    (taken,) = first.take(4)
    assert second.take(4) == []
    assert (taken.entry, taken.job, taken.deliveries) == (entry, job("r1"), 1)
    event = TokenEvent("r1", 0, [5, 6], "stop")
    commit(first, entry, event)
    message = listener.get_message(timeout=1)
    assert message is not None and decode_step(message["data"]).events == [event]
    assert api.journalled(entry, "r1") == [event]
    assert valkey.xlen(LANE.jobs) == 0


def test_the_backlog_is_bounded_by_waiting_jobs_only(valkey: "redis.Redis", api: Api) -> None:
    api.enqueue("r1", bound=1)
    with pytest.raises(BacklogFull):
        api.enqueue("r2", bound=1)
    worker(valkey, "a").take(1)
    api.enqueue("r2", bound=1)


def test_jobs_of_a_dead_incarnation_are_reclaimed_with_their_tokens(
    valkey: "redis.Redis", api: Api
) -> None:
    dead, heir = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1").entry
    dead.take(1)
    commit(dead, entry, TokenEvent("r1", 0, [5]))
    commit(dead, entry, TokenEvent("r1", 1, [6, 7]))
    assert heir.take(4) == []  # slow isn't dead
    die(valkey, dead)
    (taken,) = heir.take(4)
    assert (taken.job.request, taken.deliveries) == ("r1", 2)
    assert heir.journalled([taken]) == {"r1": [5, 6, 7]}


def test_a_fenced_replica_writes_nothing(valkey: "redis.Redis", api: Api) -> None:
    frozen, heir = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1").entry
    frozen.take(1)
    die(valkey, frozen)
    heir.take(1)
    with pytest.raises(Fenced):
        commit(frozen, entry, TokenEvent("r1", 0, [5], "stop"))
    with pytest.raises(Fenced):
        frozen.take(1)
    assert not frozen.renew()
    assert api.journalled(entry, "r1") == []
    assert valkey.xlen(LANE.jobs) == 1


def test_a_waiting_job_is_cancelled_by_removal(valkey: "redis.Redis", api: Api) -> None:
    entry = api.enqueue("r1").entry
    api.cancel(entry, "r1")
    assert worker(valkey, "a").take(1) == []


def test_a_running_job_is_cancelled_through_its_replica(valkey: "redis.Redis", api: Api) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1").entry
    owner.take(1)
    api.cancel(entry, "r1")
    assert owner.commit(StepResult(), report("a")).cancels == [Cancel("r1")]
    assert owner.commit(StepResult(), report("a")).cancels == []


def test_a_cancellation_follows_a_job_to_its_heir(valkey: "redis.Redis", api: Api) -> None:
    dead, heir = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1").entry
    dead.take(1)
    api.cancel(entry, "r1")
    die(valkey, dead)
    heir.take(1)
    assert heir.commit(StepResult(), report("b")).cancels == [Cancel("r1")]


def test_the_gate_closes_for_zero_on_an_empty_lane_only(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1").entry
    assert not scaler.close_idle(LANE)
    owner.take(1)
    assert not scaler.close_idle(LANE)
    commit(owner, entry, TokenEvent("r1", 0, [5], "stop"))
    assert scaler.close_idle(LANE)
    api.enqueue("r2")
    assert valkey.hget(LANE.gate, "state") == b"open"


def test_a_shut_gate_refuses_with_its_reason(api: Api, scaler: ScalerBroker) -> None:
    scaler.shut(LANE, "it is stopped")
    with pytest.raises(GateShut, match="it is stopped"):
        api.enqueue("r1")
    scaler.open(LANE)
    api.enqueue("r1")


def test_only_jobs_without_a_living_owner_are_answered_as_stranded(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    alive, dead = worker(valkey, "a"), worker(valkey, "b")
    entries = {}
    for name, owner in (("runs", alive), ("lost", dead), ("waits", None)):
        entries[name] = api.enqueue(name).entry
        if owner:
            owner.take(1)
    die(valkey, dead)
    assert scaler.answer_stranded(LANE, "deployment_stopped", "stopped") == 2
    assert api.journalled(entries["runs"], "runs") == []
    for name in ("lost", "waits"):
        (event,) = api.journalled(entries[name], name)
        assert (event.finish, event.error) == ("error", "stopped")


def test_observation_counts_waiting_running_and_the_living(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    empty = scaler.observe(LANE)
    assert (empty.waiting, empty.running, empty.replicas) == (0, 0, [])
    alive, dead = worker(valkey, "a"), worker(valkey, "b")
    for name in ("r1", "r2", "r3"):
        api.enqueue(name)
    alive.take(1)
    die(valkey, dead)
    seen = scaler.observe(LANE)
    assert (seen.waiting, seen.running) == (2, 1)
    assert {r.report.replica: r.alive for r in seen.replicas} == {"a": True, "b": False}
    assert seen.oldest_wait_s < 60


def test_a_replica_reads_its_orders_at_its_next_commit(
    valkey: "redis.Redis", scaler: ScalerBroker
) -> None:
    replica = worker(valkey, "a")
    assert scaler.order(LANE, "a:0", drain=True)
    assert replica.commit(StepResult(), report("a")).drain
    assert scaler.order(LANE, "a:0", drain=False)
    assert not replica.commit(StepResult(), report("a")).drain
    die(valkey, replica)
    assert not scaler.order(LANE, "a:0", drain=True)


def test_one_scaler_leads(valkey: "redis.Redis", scaler: ScalerBroker) -> None:
    standby = ScalerBroker(valkey, "scaler-2")
    assert scaler.lead(5) and scaler.lead(5)
    assert not standby.lead(5)
    scaler.resign()
    assert standby.lead(5)


def test_a_server_that_evicts_is_refused(valkey: "redis.Redis") -> None:
    check(valkey)
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnfitRedis, match="noeviction"):
            check(valkey)
    finally:
        valkey.config_set("maxmemory-policy", "noeviction")
