"""Fine-tuning on what replicas leave over of the fleet."""

from random import Random

from loraplex.entities.work import WorkState
from scheduler.law import decide
from scheduler.scaling import Scaling
from scheduler.simulator.traces import Arrival, Outcome, run
from scheduler.simulator.trainings import LOADS_S, LONGEST_YIELD_S, TrainingRow

PLACES, SECONDS, COLD_START_S, COOLDOWN_S = 2, 7200.0, 20.0, 60.0


def bursts() -> list[Arrival]:
    """Short ones, with pauses of many minutes between them."""
    random, found, at = Random(1), list[Arrival](), 0.0
    while (at := at + random.expovariate(1 / 400)) < SECONDS:
        for _ in range(random.choice((1, 20, 40))):
            found.append(Arrival(at, random.expovariate(1 / 3)))
    return found


def serve(arrivals: list[Arrival], trainings: list[TrainingRow]) -> Outcome:
    return run(
        *(decide, arrivals, SECONDS),
        scaling=Scaling(0, PLACES, COOLDOWN_S, 16),
        slots=16,
        cold_start_s=COLD_START_S,
        fleet=PLACES,
        trainings=trainings,
    )


def test_they_learn_in_the_pauses_and_requests_wait_for_their_checkpoints_at_most() -> None:
    arrivals = bursts()
    alone = serve(arrivals, [])
    trainings = [TrainingRow(f"ft-{n}", needs_s=900.0, tenant=t) for n, t in enumerate("aab")]
    beside = serve(arrivals, trainings)
    assert [t.state for t in trainings] == [WorkState.SUCCEEDED] * 3
    assert sum(t.yields for t in trainings) > 3, "they gave way"
    later = [b - a for a, b in zip(alone.waits, beside.waits, strict=True)]
    look_s = 2.0
    assert max(later) <= PLACES * (LONGEST_YIELD_S + look_s), "each place is left once a burst"
    idle_s = PLACES * SECONDS - alone.replica_s
    learned_s = sum(t.needs_s for t in trainings)
    took_s = max(t.ended_at or SECONDS for t in trainings)
    assert took_s < SECONDS and learned_s < idle_s
    assert beside.starts <= alone.starts + 2, "nothing flaps for them"


def test_none_runs_where_replicas_want_all_places() -> None:
    steady = [Arrival(float(at), 30.0) for at in range(int(SECONDS / 4)) for _ in range(2)]
    training = TrainingRow("ft", needs_s=60.0)
    serve(steady, [training])
    assert training.state == WorkState.SUCCEEDED, "it had its turn when the traffic was over"
    assert training.ended_at is not None and training.ended_at > SECONDS / 4
    assert training.learned_s < 60.0 + LOADS_S
