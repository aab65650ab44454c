"""A job that kills every replica takes nobody with it, and ends as a dead letter."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from loraplex.broker.api import ApiBroker
from loraplex.broker.connection import connect_async
from loraplex.keys import Lane
from loraplex.messages import Job, Sampling, Shown, TokenEvent
from tests.integration.poisoned_replica import POISON

NEW = 40


class Replicas:
    """Keeps so many replica processes running, as a scaler would."""

    def __init__(self, lane: Lane, redis_url: str, count: int, home: Path) -> None:
        self.deaths = 0
        self._stop = threading.Event()
        self._environment = os.environ | {
            "LORAPLEX_REDIS_URL": redis_url,
            "LORAPLEX_HOME": str(home),
            "LORAPLEX_DTYPE": "float32",
            "LORAPLEX_DETERMINISTIC": "true",
            "LORAPLEX_LEASE_S": "3",
            "LORAPLEX_THREADS": "1",
        }
        self._lane = lane
        self._keepers = [threading.Thread(target=self._keep, args=(i,)) for i in range(count)]
        for keeper in self._keepers:
            keeper.start()

    def _keep(self, number: int) -> None:
        start = 0
        while not self._stop.is_set():
            name = f"rep-{number}-{start}"
            command = [sys.executable, "-m", "tests.integration.poisoned_replica"]
            command += ["--replica", name, "--lane", self._lane.name]
            process = subprocess.Popen(command, env=self._environment)
            while process.poll() is None and not self._stop.wait(0.05):
                pass
            if process.poll() is None:
                process.kill()
            else:
                self.deaths += 1
            process.wait()
            start += 1

    def stop(self) -> None:
        self._stop.set()
        for keeper in self._keepers:
            keeper.join()


@pytest.fixture
def replicas(valkey_url: str, smollm2: Path, tmp_path: Path) -> Iterator[Replicas]:
    running = Replicas(Lane(str(smollm2), "dep-1"), valkey_url, 2, tmp_path)
    yield running
    running.stop()


def job(name: str, prompt: list[int], sampling: Sampling) -> Job:
    return Job(name, "api-1", "dev", None, prompt, sampling, time.time() + 800)


async def run(url: str, lane: Lane, jobs: list[Job]) -> dict[str, list[TokenEvent]]:
    """All events of each job, from the journal."""
    broker = ApiBroker(connect_async(url), "api-1")
    for each in jobs:
        shown = Shown(each.request, "dev", "chat", "m", 0, each.deadline, 1, 1, 1, 1)
        await broker.enqueue(lane, [each], shown, "api-1/a", max_backlog=99, keep_s=300)
    found: dict[str, list[TokenEvent]] = {each.request: [] for each in jobs}
    after = "0"
    while not all(events and events[-1].finish for events in found.values()):
        page = await broker.follow_journal(lane, after, 1)
        after = page.last or after
        for event in (event for _, step in page.steps for event in step.events):
            if event.request in found:
                found[event.request].append(event)
        assert time.time() < jobs[0].deadline, found
    await broker.aclose()
    return found


@pytest.mark.timeout(900)
def test_a_poisonous_job_is_isolated(
    replicas: Replicas, valkey: "redis.Redis", valkey_url: str, smollm2: Path
) -> None:
    lane = Lane(str(smollm2), "dep-1")
    neighbours = [
        job(
            f"n{i}",
            [100 + i, 200, 300],
            Sampling(NEW, i, 1.0 if i % 2 else 0.0, ignore_eos=True),
        )
        for i in range(5)
    ]
    expected = asyncio.run(run(valkey_url, lane, neighbours))
    valkey.delete(lane.journal, *valkey.keys(lane.request_prefix + "*"))
    jobs = [*neighbours[:3], job(POISON, [5, 6, 7], Sampling(NEW, 0)), *neighbours[3:]]
    got = asyncio.run(run(valkey_url, lane, jobs))
    for each in neighbours:
        assert tokens(got[each.request]) == tokens(expected[each.request])
    (last,) = got[POISON]
    assert (last.finish, last.error_code) == ("error", "replica_died")
    assert replicas.deaths == 3, "once in company, twice alone"
    assert valkey.xlen(lane.dead_letters) == 1
    assert (valkey.xlen(lane.jobs), valkey.hgetall(lane.deaths)) == (0, {})


def tokens(events: list[TokenEvent]) -> list[int]:
    """Each position once, and in order."""
    found: list[int] = []
    for event in events:
        assert event.position == len(found) and event.error is None
        found += event.tokens
    assert events[-1].finish == "length" and len(found) == NEW
    return found
