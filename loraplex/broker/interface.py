"""Values and errors of the broker; the three sides in `api.py`, `worker.py`, `scaler.py` give them.

What it promises: a job that was accepted is either on the lane or its last token is in the journal;
a token is published at most by one living owner; positions make every token identifiable, so that
readers drop repeats and fill gaps from the journal.
"""

from dataclasses import dataclass
from typing import NamedTuple

from loraplex.keys import Lane
from loraplex.messages import Cancel, Job, ReplicaReport, Shown, Step, Usage


class BacklogFull(Exception):
    """The lane's bound is reached. `waiting` jobs are queued."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting")
        self.waiting = waiting


class GateShut(Exception):
    """The deployment takes no requests; the text is the reason, for its users."""


class MemoryFull(Exception):
    """Redis has no memory for new requests; what was accepted goes on."""


class AlreadyKnown(Exception):
    """A request with this id was accepted before."""


class StillStopping(Exception):
    """The same, and it was stopped, but a replica has not heard of that yet."""


class Deposed(Exception):
    """Another scaler has led since this one's epoch: what it does is refused."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"another scaler leads since epoch {epoch}")


class Fenced(Exception):
    """This incarnation's lease has run out: its jobs belong to others; it must drop them all."""


class Accepted(NamedTuple):
    """A request on its lane: the stream ids of its answers' jobs, the journal's latest id then (up
    to there the journal has nothing of it), and how many jobs waited."""

    entries: list[str]
    after: str
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """An accepted request: `entries` and `after` as in `Accepted`."""

    shown: Shown
    entries: list[str]
    after: str = ""
    unfinished: frozenset[str] = frozenset()  # those that are on the lane still
    journal: str = "$"  # the latest id of the lane's journal
    stopped: bool = False  # nobody waited for it any more


@dataclass(frozen=True, slots=True)
class Page:
    """Entries of a lane's journal: id and step. Those of another release are left out."""

    steps: list[tuple[str, Step]]
    last: str | None  # id of the last entry; None: there was none
    more: bool  # there may be more after it


@dataclass(frozen=True, slots=True)
class TakenJob:
    """A job in the hands of a replica.

    `deliveries`: replicas in whose batch it was, this one included; `deaths`: those that died while
    they ran it alone; `reclaimed`: another incarnation had it, so the journal may have tokens, but
    none up to the id `after`.
    """

    entry: str
    job: Job
    deliveries: int
    deaths: int = 0
    reclaimed: bool = False
    after: str = ""
    queue_s: float = 0.0  # from its arrival until it was taken, by Redis' clock


@dataclass(frozen=True, slots=True)
class Journalled:
    """What the journal has of a job's output: token ids, and when the first came (Unix seconds)."""

    tokens: list[int]
    first_at: float | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up; `entry` is its id among the dead letters."""

    entry: str
    job: Job
    error: str


@dataclass(frozen=True, slots=True)
class Orders:
    """What a commit brings back."""

    drain: bool
    waiting: int  # jobs on the lane that nobody has taken
    cancels: list[Cancel]


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """A record on a lane; `job` is the id that the answer's job had there."""

    job: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class UsagePage:
    """Of a lane's usage: ids of entries, and those records of them that can be read."""

    entries: list[str]
    readable: list[StoredUsage]


class LogLine(NamedTuple):
    """Of a lane's log: its id there, who logged it, the line."""

    entry: str
    replica: str
    text: str


@dataclass(frozen=True, slots=True)
class SeenReplica:
    incarnation: str
    alive: bool  # its lease holds
    ordered_to_drain: bool
    report: ReplicaReport


@dataclass(frozen=True, slots=True)
class SeenLane:
    """A lane at one instant."""

    lane: Lane
    at: float  # Unix seconds, Redis' clock
    waiting: int
    running: int
    oldest_wait_s: float
    replicas: list[SeenReplica]
    arrived: int = 0  # jobs since the lane exists
    gate: str = ""  # open, idle or shut; "": no request has ever come
    gate_reason: str = ""  # what senders read at a shut gate
    usage: int = 0  # records that are not stored yet

    def by_age(self) -> list[SeenReplica]:
        """The newest incarnation of a replica comes last."""
        return sorted(self.replicas, key=lambda r: (r.alive, r.report.at))
