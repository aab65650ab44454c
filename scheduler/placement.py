"""Who may have how many replicas, and where, on a fleet with a limit. Pure, and without memory:
all claims are ranked anew at each look, so that whoever must yield does so by falling out.

Rank: guaranteed replicas (`min_replicas`); those that have work, or a rollout that has waited for a
turn; other rollouts; idle ones, the latest used first. Within a rank: priority, then who has
fewest, then who holds its place already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_NAMED = 5  # at most, of those that hold places
TURN_S = 120.0  # who is as important as others, and has waited for so long, has its turn


class Place(NamedTuple):
    host: str
    slot: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What one deployment would like."""

    deployment: str
    wanted: int  # replicas that its law wants, guaranteed ones included
    guaranteed: int
    busy: int  # of them, those that have work
    surge: int = 0  # more, while a change is rolled out
    surge_s: float = 0.0  # for how long they have been needed
    priority: int = 0
    has: int = 0  # starting and ready ones
    used_at: float = 0.0  # when it last had work
    waited_s: float = 0.0  # how long its oldest request has been here
    held_s: float = 0.0  # how long the oldest of those that it has

    @property
    def next_rank(self) -> tuple[float, ...]:
        """Of the next replica that it would get."""
        return _rank(self, self.has)


class Holder(NamedTuple):
    """A deployment that has replicas."""

    tenant: str
    name: str
    replicas: int


class Fleet(NamedTuple):
    slots: Mapping[str, int]  # by host

    @property
    def size(self) -> int:
        return sum(self.slots.values())

    def free(self, taken: set[Place]) -> Iterator[Place]:
        """Free places, spread over hosts: those with most room first."""
        taken = set(taken)
        room = dict(self.slots)
        for place in taken:
            room[place.host] = room.get(place.host, 0) - 1
        while room and max(room.values()) > 0:
            host = max(room, key=room.__getitem__)
            slot = next(s for s in range(self.slots[host]) if Place(host, s) not in taken)
            taken.add(Place(host, slot))
            room[host] -= 1
            yield Place(host, slot)


def allow(claims: Sequence[Claim], size: int) -> dict[str, int]:
    """How many replicas each deployment may have; together at most `size`."""
    if sum(c.wanted + c.surge for c in claims) <= size:
        return {c.deployment: c.wanted + c.surge for c in claims}
    ranked: list[tuple[tuple[float, ...], str]] = []
    for claim in claims:
        for index in range(claim.wanted + claim.surge):
            ranked.append((_rank(claim, index), claim.deployment))
    ranked.sort()
    allowed = {c.deployment: 0 for c in claims}
    for _, deployment in ranked[:size]:
        allowed[deployment] += 1
    return allowed


def full(holders: Sequence[Holder], tenant: str) -> str:
    """Who has the fleet's places, for whoever waits for one; others' names are not told."""
    mine = sorted((h for h in holders if h.tenant == tenant), key=lambda h: (-h.replicas, h.name))
    named = mine[:_NAMED]
    parts = [f"{h.name} has {h.replicas}" for h in named]
    if left := sum(h.replicas for h in holders) - sum(h.replicas for h in named):
        others = len(holders) - len(named)
        parts.append(f"{others} others have {left}" if others > 1 else f"1 other has {left}")
    return f"the fleet is full ({', '.join(parts)})" if parts else "the fleet is full"


def _rank(claim: Claim, index: int) -> tuple[float, ...]:
    if index < claim.guaranteed:
        return (0, -claim.priority, index, _turn(claim, index), -claim.used_at)
    if index < claim.busy:
        return (1, -claim.priority, index, _turn(claim, index), -claim.waited_s, claim.used_at)
    if index >= claim.wanted and claim.surge_s > TURN_S:  # else others' work may keep it for ever
        return (1, -claim.priority, 0, int(index >= claim.has), -claim.surge_s)
    if index >= claim.wanted:
        return (2, -claim.priority, index, _turn(claim, index), -claim.used_at)
    return (3, -claim.used_at, -claim.priority, index, _turn(claim, index))


def _turn(claim: Claim, index: int) -> int:
    """Among equals: who has begun its turn, who has waited for one, who has a place, who has none.
    So those that are busy all the time take turns, and nobody is pushed out of one."""
    if index >= claim.has:
        return 1 if claim.has == 0 and claim.waited_s > TURN_S else 3
    return 0 if claim.held_s < TURN_S else 2
