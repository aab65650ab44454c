"""The adapters of waiting jobs are read while a replica loads; nothing is taken from the lane."""

from pathlib import Path

import redis

from gpu_worker.prefetch import Prefetch
from loraplex.broker.worker import WorkerBroker
from loraplex.keys import Lane
from loraplex.messages import Job, Sampling, encode

LANE = Lane("org/base", "dep-1")


def add(valkey: "redis.Redis", adapter: str | None) -> None:
    job = Job("r", "api-1", "dev", adapter, [1], Sampling(1, 0), 2e9)
    valkey.xadd(LANE.jobs, {"j": encode(job), "r": "r"})


def test_each_waiting_adapter_is_read_once_and_the_jobs_stay(
    valkey: "redis.Redis", tmp_path: Path
) -> None:
    for adapter in ("b", None, "a", "b", "missing", "c"):
        add(valkey, adapter)
    valkey.xadd(LANE.jobs, {"j": b"of another release"})
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"w")
    broker = WorkerBroker(valkey, LANE, "rep:0")
    assert broker.peek_adapters() == ["b", "a", "missing", "c"]
    prefetch = Prefetch(broker, lambda name: tmp_path / name)
    prefetch.join(10)
    assert prefetch.read == ["b", "a", "c"]
    assert valkey.xlen(LANE.jobs) == 7
