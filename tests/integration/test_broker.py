"""The delivery protocol against a real Valkey: what the Lua scripts promise."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from loraplex.broker import worker as broker_worker
from loraplex.broker.api import ApiBroker
from loraplex.broker.cancellation import answer_id
from loraplex.broker.connection import UnfitRedis, check, connect_async
from loraplex.broker.interface import (
    Accepted,
    AlreadyKnown,
    BacklogFull,
    Fenced,
    GateShut,
    Recorded,
    StillStopping,
)
from loraplex.broker.scaler import ScalerBroker
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.keys import APIS, Lane, reply_channel
from loraplex.messages import (
    Account,
    Cancel,
    Job,
    ReplicaReport,
    Sampling,
    Shown,
    TokenEvent,
    decode_job,
    decode_step,
    encode,
)
from tests.valkey_servers import cluster


@pytest.fixture(scope="module", params=["server", "cluster"])
def valkey_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """One server, and a cluster of three: each script's keys must be in one slot."""
    if request.param == "server":
        yield request.getfixturevalue("single_valkey_url")
    else:
        with cluster(tmp_path_factory.mktemp("cluster")) as url:
            yield url


WAITER = "api-1/a"
LANE = Lane("org/base", "dep-1")
UNCHARGED = Account()


def job(name: str, account: Account = UNCHARGED) -> Job:
    return Job(name, "api-1", "dev", None, [1, 2], Sampling(8, 0), 2e9, account)


def shown(name: str, **changes: Any) -> Shown:
    facts: dict[str, Any] = {"model": "m", "created": 0, "deadline": 2e9, "prompt_tokens": 2}
    facts |= {"answers": 1, "n": 1, "best": 1, "surface": "chat", "tenant": "dev"}
    return Shown(request=name, **facts | changes)


def report(replica: str) -> ReplicaReport:
    return ReplicaReport(replica, "ready", 0.0)


class Api:
    """The asynchronous side, driven from synchronous tests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.account = UNCHARGED

    def _run(self, method: str, *arguments: object, **options: object) -> object:
        async def call() -> object:
            broker = ApiBroker(connect_async(self.url), "api-1")
            try:
                return await getattr(broker, method)(*arguments, **options)
            finally:
                await broker.aclose()

        return asyncio.run(call())

    def enqueue(self, name: str, bound: int = 100, answers: int = 1) -> str:
        """The stream id of its (first) job."""
        jobs = [job(answer_id(name, index), self.account) for index in range(answers)]
        arguments = {"max_backlog": bound, "keep_s": 60}
        accepted = self._run("enqueue", LANE, jobs, shown(name), WAITER, **arguments)
        assert isinstance(accepted, Accepted) and len(accepted.entries) == answers
        return accepted.entries[0]

    def cancel(self, entry: str, name: str) -> str:
        return str(self._run("cancel", LANE, name, [entry]))

    def leave(self, entry: str, name: str, waiter: str, unserved: bool = False) -> str:
        return str(self._run("leave", LANE, name, [entry], waiter, unserved=unserved))

    def attach(self, name: str, waiter: str) -> Recorded | None:
        found = self._run("attach", LANE, name, waiter)
        assert found is None or isinstance(found, Recorded)
        return found

    def journalled(self, name: str) -> list[TokenEvent]:
        page: Any = self._run("journal_page", LANE, "0", 500)
        return [event for _, step in page.steps for event in step.events if event.request == name]


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
    entry = api.enqueue("r1")
    listener = valkey.pubsub()
    listener.subscribe(reply_channel("api-1"))
    assert next(listener.listen())["type"] == "subscribe"
    (taken,) = first.take(4)
    assert second.take(4) == []
    assert (taken.entry, taken.job, taken.deliveries) == (entry, job("r1"), 1)
    event = TokenEvent("r1", 0, [5, 6], "stop")
    commit(first, entry, event)
    message = next(listener.listen())
    step = decode_step(message["data"])
    ((journal_entry, _),) = valkey.xrange(LANE.journal)
    assert (step.events, step.entry.rstrip()) == ([event], journal_entry.decode())
    assert api.journalled("r1") == [event]
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
    entry = api.enqueue("r1")
    dead.take(1)
    commit(dead, entry, TokenEvent("r1", 0, [5]))
    commit(dead, entry, TokenEvent("r1", 1, [6, 7]))
    assert heir.take(4) == []  # slow isn't dead
    die(valkey, dead)
    (taken,) = heir.take(4)
    assert (taken.job.request, taken.deliveries) == ("r1", 2)
    assert heir.journalled([taken])["r1"].tokens == [5, 6, 7]


def test_who_dies_with_one_job_alone_blames_no_other(valkey: "redis.Redis", api: Api) -> None:
    dead, heir = worker(valkey, "a"), worker(valkey, "b")
    entries = {name: api.enqueue(name) for name in ("r1", "r2")}
    dead.take(2)
    dead.commit(StepResult(), report("a"), batch=entries["r1"])
    die(valkey, dead)
    facts = [(t.job.request, t.deliveries, t.deaths, t.reclaimed) for t in heir.take(4)]
    assert facts == [("r1", 2, 1, True), ("r2", 1, 0, True)]
    # Its own end isn't a death of its jobs.
    heir.leave(report("b"))
    third = worker(valkey, "c")
    facts = [(t.job.request, t.deliveries, t.deaths, t.reclaimed) for t in third.take(4)]
    assert facts == [("r1", 2, 1, True), ("r2", 1, 0, True)]
    assert valkey.hgetall(LANE.batches) == {}


def test_a_job_that_is_given_up_is_a_dead_letter(valkey: "redis.Redis", api: Api) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1")
    owner.take(1)
    result = StepResult(dead=[(entry, "two replicas died")])
    result.add("api-1", TokenEvent("r1", 0, [], "error", "two replicas died"), entry)
    owner.commit(result, report("a"))
    ((_, letter),) = valkey.xrange(LANE.dead_letters)
    assert (decode_job(letter[b"j"]), letter[b"error"]) == (job("r1"), b"two replicas died")
    assert valkey.xlen(LANE.jobs) == 0 and valkey.hgetall(LANE.deaths) == {}


def test_a_job_of_another_release_is_left_to_those_who_can_read_it(
    valkey: "redis.Redis", api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, newer = worker(valkey, "a"), worker(valkey, "b")
    newer_job = encode(job("r1")).replace(b"job.1", b"job.9")
    valkey.xadd(LANE.jobs, {"j": newer_job, "r": "r1", "to": "api-1"})
    assert old.take(4) == [] and old.take(4) == []
    assert valkey.xlen(LANE.jobs) == 1
    monkeypatch.setattr(broker_worker, "_REFUSED", "refused:9")
    monkeypatch.setattr(
        broker_worker, "decode_job", lambda raw: decode_job(raw.replace(b"job.9", b"job.1"))
    )
    (taken,) = newer.take(4)
    assert (taken.job, taken.deliveries) == (job("r1"), 1)


def test_the_journal_keeps_what_unfinished_jobs_and_the_retention_need(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    valkey.xadd(LANE.journal, {"s": b"old"}, id="5-0")
    owner = WorkerBroker(valkey, LANE, "a:0", retention_s=0.0)
    owner.register(report("a"))
    entry = api.enqueue("r1")
    owner.take(1)
    for position in range(300):
        commit(owner, entry, TokenEvent("r1", position, [1]))
    scaler.trim([LANE], 0.0)
    assert len(api.journalled("r1")) == 300
    commit(owner, entry, TokenEvent("r1", 300, [1], "stop"))
    valkey.time()
    scaler.trim([LANE], -2.0)
    assert valkey.xlen(LANE.journal) == 0


def test_a_fenced_replica_writes_nothing(valkey: "redis.Redis", api: Api) -> None:
    frozen, heir = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1")
    frozen.take(1)
    die(valkey, frozen)
    heir.take(1)
    with pytest.raises(Fenced):
        commit(frozen, entry, TokenEvent("r1", 0, [5], "stop"))
    with pytest.raises(Fenced):
        frozen.take(1)
    assert not frozen.renew()
    assert api.journalled("r1") == []
    assert valkey.xlen(LANE.jobs) == 1


def test_a_waiting_job_is_cancelled_by_removal_and_its_client_told(
    valkey: "redis.Redis", api: Api
) -> None:
    entry = api.enqueue("r1")
    assert api.cancel(entry, "r1") == "stopped"
    assert worker(valkey, "a").take(1) == []
    assert [event.finish for event in api.journalled("r1")] == ["cancelled"]
    assert api.cancel(entry, "r1") == "ended"


def test_a_request_is_kept_while_anybody_waits_for_it(valkey: "redis.Redis", api: Api) -> None:
    entry = api.enqueue("r1")
    found = api.attach("r1", "api-2/b")
    assert found is not None and (found.entries, found.shown) == ([entry], shown("r1"))
    assert api.leave(entry, "r1", WAITER, unserved=True) == "kept"
    assert api.leave(entry, "r1", "api-2/b", unserved=True) == "stopped"
    assert api.attach("r1", "api-3/c") is None, "it may be sent again"
    assert not valkey.keys(LANE.request_prefix + "*")


def test_a_stopped_request_is_sent_again_when_no_replica_has_the_old_one(
    valkey: "redis.Redis", api: Api
) -> None:
    """Else its cancellation, and its tokens, would be taken for the new one's."""
    owner = worker(valkey, "a")
    entry = api.enqueue("r1")
    owner.take(1)
    assert api.leave(entry, "r1", WAITER, unserved=True) == "stopped"
    assert api.attach("r1", WAITER) is None
    with pytest.raises(StillStopping):
        api.enqueue("r1")
    commit(owner, entry, TokenEvent("r1", 3, [], "cancelled"))
    again = api.enqueue("r1")
    recorded = api.attach("r1", WAITER)
    ((left, _),) = valkey.xrange(LANE.journal)
    assert recorded is not None and (recorded.entries, recorded.after) == ([again], left.decode())
    (taken,) = owner.take(1)
    assert owner.journalled([taken])["r1"].tokens == [], "what is left is of the old one"


def test_the_same_request_is_enqueued_once(valkey: "redis.Redis", api: Api) -> None:
    api.enqueue("r1", answers=3)
    with pytest.raises(AlreadyKnown):
        api.enqueue("r1")
    assert valkey.xlen(LANE.jobs) == 3


def test_a_served_request_can_be_read_again(valkey: "redis.Redis", api: Api) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1")
    owner.take(1)
    commit(owner, entry, TokenEvent("r1", 0, [5], "stop"))
    assert api.leave(entry, "r1", WAITER) == "ended"
    assert api.attach("r1", WAITER) is not None
    assert 0 < valkey.ttl(LANE.request_prefix + "r1") <= 61


def test_a_dead_api_process_waits_no_longer(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    for name in ("r1", "r2"):
        api.enqueue(name)
    api.attach("r2", "api-2/b")
    valkey.zadd(APIS, {"api-1": 1, "api-2": 9e15})
    assert list(scaler.silent_apis(10)) == ["api-1"]
    assert scaler.leave_for(LANE, "api-1", silent_s=60) == (1, 0)
    assert [event.finish for event in api.journalled("r1")] == ["cancelled"]
    assert api.journalled("r2") == [], "somebody waits for it through another process"
    scaler.forget_api("api-1")
    assert scaler.silent_apis(10) == {}


def test_a_running_job_is_cancelled_through_its_replica(valkey: "redis.Redis", api: Api) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1")
    owner.take(1)
    api.cancel(entry, "r1")
    assert owner.commit(StepResult(), report("a")).cancels == [Cancel("r1")]
    assert owner.commit(StepResult(), report("a")).cancels == []


def test_a_job_that_is_removed_leaves_no_count_of_its_deaths(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    first, second = api.enqueue("r1"), api.enqueue("r2")
    for entry in (first, second):
        valkey.hset(LANE.deaths, entry, 1)
    api.cancel(first, "r1")
    scaler.answer_stranded(LANE, "deployment_stopped", "stopped")
    assert valkey.hgetall(LANE.deaths) == {}


@pytest.mark.parametrize("reply_lost", [False, True])
def test_a_cancellation_follows_a_job_to_its_heir(
    valkey: "redis.Redis", api: Api, reply_lost: bool
) -> None:
    """Also one that was on its way to the replica that dies."""
    dead, heir = worker(valkey, "a"), worker(valkey, "b")
    entry = api.enqueue("r1")
    dead.take(1)
    api.cancel(entry, "r1")
    if reply_lost:
        dead.commit(StepResult(), report("a"))
    die(valkey, dead)
    heir.take(1)
    assert heir.commit(StepResult(), report("b")).cancels == [Cancel("r1")]


def test_the_gate_closes_for_zero_on_an_empty_lane_only(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    owner = worker(valkey, "a")
    entry = api.enqueue("r1")
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
        entries[name] = api.enqueue(name)
        if owner:
            owner.take(1)
    die(valkey, dead)
    assert scaler.answer_stranded(LANE, "deployment_stopped", "stopped") == 2
    assert api.journalled("runs") == []
    for name in ("lost", "waits"):
        (event,) = api.journalled(name)
        assert (event.finish, event.error) == ("error", "stopped")


def test_observation_counts_waiting_running_and_the_living(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    empty = scaler.observe([LANE])[LANE]
    assert (empty.waiting, empty.running, empty.replicas) == (0, 0, [])
    alive, dead = worker(valkey, "a"), worker(valkey, "b")
    for name in ("r1", "r2", "r3"):
        api.enqueue(name)
    alive.take(1)
    die(valkey, dead)
    seen = scaler.observe([LANE])[LANE]
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


def test_when_the_channel_is_back_no_dead_connection_is_used(
    valkey: "redis.Redis", valkey_url: str
) -> None:
    async def outage() -> None:
        broker = ApiBroker(connect_async(valkey_url), "api-1")
        await asyncio.gather(*(broker.ping() for _ in range(8)))
        valkey.client_kill_filter(_type="normal", skipme=True)
        assert await anext(broker.listen()) is None
        await asyncio.gather(*(broker.ping() for _ in range(8)))
        await broker.aclose()

    asyncio.run(outage())


def test_a_server_that_evicts_is_refused(valkey: "redis.Redis") -> None:
    check(valkey)
    valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(UnfitRedis, match="noeviction"):
            check(valkey)
    finally:
        valkey.config_set("maxmemory-policy", "noeviction")
