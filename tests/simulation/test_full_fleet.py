"""More deployments with work than places: they take turns."""

from random import Random

from scheduler.law import decide
from scheduler.placement import TURN_S
from scheduler.scaling import Scaling
from scheduler.simulator.traces import Arrival, run

DEPLOYMENTS, PLACES, SECONDS = 6, 2, 1800.0


def test_nobody_starves_and_nobody_is_pushed_out_of_a_turn() -> None:
    random, arrivals = Random(0), list[Arrival]()
    for deployment in range(DEPLOYMENTS):
        at = 0.0
        while (at := at + random.expovariate(1 / 10)) < SECONDS:
            arrivals.append(Arrival(at, random.expovariate(1 / 3), deployment))
    arrivals.sort(key=lambda arrival: arrival.at)
    found = run(
        *(decide, arrivals, SECONDS),
        scaling=Scaling(0, PLACES, 600, 16),
        slots=16,
        cold_start_s=20.0,
        deployments=DEPLOYMENTS,
        fleet=PLACES,
    )
    # Who runs out of work yields before its turn is over.
    assert found.starts < 2 * found.replica_s / TURN_S
    assert found.wait(1.0) < 2 * TURN_S * DEPLOYMENTS / PLACES
