"""What Redis holds is bounded, and when its memory is full nothing that was accepted is lost."""

from collections.abc import Iterator

import pytest
import redis

from loraplex.broker.connection import Unavailable
from loraplex.broker.interface import MemoryFull
from loraplex.broker.scaler import ScalerBroker
from loraplex.broker.worker import StepResult, WorkerBroker
from loraplex.keys import Lane
from loraplex.messages import TokenEvent
from tests.integration.test_broker import LANE, WAITER, Api, report, worker


@pytest.fixture
def api(valkey_url: str, valkey: "redis.Redis") -> Api:
    return Api(valkey_url)


@pytest.fixture
def full(valkey: "redis.Redis") -> Iterator[None]:
    """Call it full by `fill`; afterwards there is room again."""
    was = valkey.config_get("maxmemory")["maxmemory"]
    yield
    valkey.config_set("maxmemory", was)


@pytest.fixture
def scaler(valkey: "redis.Redis") -> ScalerBroker:
    return ScalerBroker(valkey, "scaler-1")


def fill(valkey: "redis.Redis") -> None:
    valkey.config_set("maxmemory", int(valkey.info("memory")["used_memory"] * 0.9))


def test_full_memory_refuses_new_requests_and_ends_those_that_were_accepted(
    valkey: "redis.Redis", api: Api, full: None
) -> None:
    owner = worker(valkey, "a")
    entries = {name: api.enqueue(name) for name in ("r1", "r2", "r3")}
    fill(valkey)
    with pytest.raises(MemoryFull):
        api.enqueue("r4")
    assert len(owner.take(2)) == 2
    result = StepResult()
    for name in ("r1", "r2"):
        result.add("api-1", TokenEvent(name, 0, [5] * 1000, "stop"), entries[name])
    owner.commit(result, report("a"))
    assert api.leave(entries["r1"], "r1", WAITER) == "ended"
    assert api.cancel(entries["r3"], "r3") == "stopped"
    assert valkey.xlen(LANE.jobs) == 0
    assert [len(event.tokens) for event in api.journalled("r2")] == [1000]


@pytest.mark.parametrize("kind", ["OOM", "READONLY", "MISCONF", "LOADING", "MASTERDOWN"])
def test_a_server_that_takes_no_writes_is_away(valkey: "redis.Redis", kind: str) -> None:
    with pytest.raises(Unavailable):
        valkey.eval(f"return redis.error_reply('{kind} not now')", 0)


def test_the_journal_holds_the_tokens_of_unfinished_jobs_and_of_the_retention(
    valkey: "redis.Redis", api: Api, scaler: ScalerBroker
) -> None:
    """A thousand requests of four tokens each, four at a time, with no retention."""
    owner = WorkerBroker(valkey, LANE, "a:0", retention_s=0)
    owner.register(report("a"))
    longest = 0
    for number in range(250):
        entry = api.enqueue(f"r{number}", answers=4)
        jobs = owner.take(4)
        for position in range(4):
            result = StepResult()
            for job in jobs:
                end = "stop" if position == 3 else None
                result.add("api-1", TokenEvent(job.job.request, position, [7], end), job.entry)
            owner.commit(result, report("a"))
        assert api.leave(entry, f"r{number}", WAITER) == "ended"
        longest = max(longest, valkey.xlen(LANE.journal))
    assert longest < 250, "trimmed by whole nodes of a hundred entries"
    scaler.trim([LANE], retention_s=-1)
    assert (valkey.xlen(LANE.journal), valkey.xlen(LANE.jobs)) == (0, 0)
    assert all(0 < valkey.ttl(key) <= 61 for key in valkey.keys(LANE.request_prefix + "*"))
    lasting = {LANE.jobs, LANE.journal, LANE.gate, LANE.reports, LANE.lease_prefix + "a:0"}
    left = {key.decode() for key in valkey.keys("*") if not key.startswith(records(LANE))}
    assert left <= lasting, "and nothing else"


def records(lane: Lane) -> bytes:
    return lane.request_prefix.encode()
