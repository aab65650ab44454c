"""The arithmetic of cells, and the queues of the simulated fleet."""

import numpy as np
import pytest

from benchmarks.capacity.api_cost import ApiCost
from benchmarks.capacity.cell import Work, apis_of_a_step, best, cell, cells_for, with_apis
from benchmarks.capacity.fit import parts
from benchmarks.capacity.redis_cost import StepCost
from benchmarks.capacity.simulate import lateness, served

REDIS = StepCost((40e-6, 5e-6, 0.3e-6), (500, 160, 54), (30, 90, 44), 45, 0.1)
API = ApiCost(80e-6, 5e-6, 1e-3, 250e-6, 280, 40_000, 0.1)


def test_a_replicas_streams_are_at_as_many_api_processes_as_there_are_or_fewer() -> None:
    assert apis_of_a_step(1, 100) == 1
    assert apis_of_a_step(4, 100) == pytest.approx(4)
    assert apis_of_a_step(1000, 100) == pytest.approx(95.2, abs=0.1)


def test_one_replica_is_what_its_steps_and_requests_cost() -> None:
    found = cell(1, 1, Work(steps_s=10, streams=100, tokens=100), REDIS, API)
    assert found.redis == pytest.approx(10 * (40e-6 + 5e-6 + 30e-6) + 10 * 250e-6)
    assert found.api == pytest.approx(10 * 80e-6 + 1000 * 5e-6 + 10 * 1e-3)
    assert found.streams == 100
    assert found.journal_gb == pytest.approx(1000 * 600 * 45 / 1e9)


def test_a_cell_has_as_few_api_processes_as_keep_below_the_share() -> None:
    work = Work()
    found = with_apis(60, work, REDIS, API, 0.6)
    assert found is not None
    assert found.api <= 0.6
    assert cell(60, found.apis - 1, work, REDIS, API).api > 0.6
    assert with_apis(100_000, work, REDIS, API, 0.6) is None


def test_the_best_cell_is_neither_small_nor_as_large_as_can_be() -> None:
    work = Work()
    found = best(work, REDIS, API, 0.6)
    for other in (1, found.replicas * 2):
        beside = with_apis(other, work, REDIS, API, 0.6)
        assert beside is None or beside.cores_a_thousand_streams > found.cores_a_thousand_streams
    assert cells_for(10**6, found) * found.streams >= 10**6


def test_parts_are_found_from_mixtures() -> None:
    shapes = np.array([[1, 1, 1], [1, 1, 32], [1, 4, 32], [1, 16, 128]], float)
    found, off = parts(shapes, shapes @ np.array(REDIS.seconds))
    assert found == pytest.approx(REDIS.seconds)
    assert off < 1e-9


def test_a_server_does_one_thing_at_a_time_in_order() -> None:
    arrivals, services = np.array([0.0, 1.0, 1.5, 9.0]), np.array([2.0, 1.0, 1.0, 1.0])
    assert served(arrivals, services).tolist() == [2.0, 3.0, 4.0, 10.0]


def test_a_fleet_that_is_busier_is_later() -> None:
    work = Work()
    calm = cell(20, 4, work, REDIS, API)
    busy = cell(100, 8, work, REDIS, API)
    first = lateness(calm, work, REDIS, API, 2, 3)
    then = lateness(busy, work, REDIS, API, 2, 3)
    assert first.p99 < then.p99
    assert first.p50 >= 1000 * (40e-6 + 80e-6)
    assert first == lateness(calm, work, REDIS, API, 2, 3)
