"""Which fine-tuning jobs have places of the fleet, and which give theirs back: the lowest rank of
all, below an idle replica's. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loraplex.entities.work import WorkState
from scheduler import actions as do
from scheduler.placement import Fleet, Place

SILENT_S = 30.0  # its worker is taken for dead
ASK_AGAIN_S = 60.0  # a task that was asked for and didn't begin was lost, or waits
PAUSE_S = 20.0  # after it gave way: it takes that long to load what it trains


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """A job that hasn't ended, or has a place still."""

    id: str
    tenant: str
    state: WorkState
    place: Place | None
    created_at: float  # times are Unix seconds
    placed_at: float | None  # when it last got a place
    sign_at: float  # its latest sign, or change
    yielding: bool = False


@dataclass(frozen=True, slots=True)
class TrainingRules:
    """`host`: the one that they run on, the task workers'; where the fleet doesn't have it, they
    take no replica's place. `most`: at once."""

    host: str = "local"
    most: int = 1


def share_out(
    trainings: Sequence[TrainingFacts],
    needed: int,
    taken: set[Place],
    fleet: Fleet,
    rules: TrainingRules,
    now: float,
) -> Iterator[do.Action]:
    """`needed`: places that replicas have or may have; `taken`: those where one is, or will be."""
    lost = [t for t in trainings if _is_lost(t, now)]
    yield from (do.FreeTraining(t.id) for t in lost)
    holders = [t for t in trainings if t.place and t not in lost]
    room = fleet.size - needed if rules.host in fleet.slots else rules.most
    surplus = len(holders) - max(0, min(room, rules.most))
    leaving = [t for t in holders if t.yielding and t.state != WorkState.QUEUED]
    staying = [t for t in holders if t not in leaving]
    for each in sorted(staying, key=_least_missed)[: max(0, surplus - len(leaving))]:
        yield (
            do.FreeTraining(each.id)
            if each.state == WorkState.QUEUED
            else do.YieldTraining(each.id)
        )
        staying.remove(each)
    for each in staying:
        if each.place and each.state == WorkState.QUEUED and now - each.sign_at > ASK_AGAIN_S:
            yield do.PlaceTraining(each.id, *each.place)
    free = _free(fleet, rules, taken | {t.place for t in trainings if t.place})
    for each, place in zip(_next(trainings, holders, now)[: max(0, -surplus)], free, strict=False):
        yield do.PlaceTraining(each.id, *place)


def _is_lost(training: TrainingFacts, now: float) -> bool:
    """Who ran it gives no sign, whatever has become of it since."""
    held = training.state == WorkState.RUNNING or training.place is not None
    ran = held and training.state != WorkState.QUEUED
    return ran and now - training.sign_at > SILENT_S


def _least_missed(training: TrainingFacts) -> tuple[bool, float]:
    """One that hasn't begun, else who has had its place for the shortest time."""
    return training.state != WorkState.QUEUED, -(training.placed_at or 0.0)


def _free(fleet: Fleet, rules: TrainingRules, taken: set[Place]) -> Iterator[Place]:
    slots = fleet.slots.get(rules.host, rules.most)
    return (place for slot in range(slots) if (place := Place(rules.host, slot)) not in taken)


def _next(
    trainings: Sequence[TrainingFacts], holders: Sequence[TrainingFacts], now: float
) -> list[TrainingFacts]:
    """Those that wait: tenants with fewest first, one of each before a second one of any, the
    oldest first. Who gave way a moment ago would only do so again."""
    turns = Counter(t.tenant for t in holders)
    waiting = [t for t in trainings if not t.place and t.state == WorkState.QUEUED]
    ranked = []
    for each in sorted(waiting, key=lambda t: (t.created_at, t.id)):
        ranked.append((turns[each.tenant], each.created_at, each.id, each))
        turns[each.tenant] += 1
    return [t for *_, t in sorted(ranked) if t.placed_at is None or now - t.sign_at > PAUSE_S]
