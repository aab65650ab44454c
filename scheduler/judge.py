"""What has become of a replica, by its row, its process and what it says of itself. Pure."""

from dataclasses import dataclass
from typing import Literal

from loraplex.replica_state import ReplicaState
from scheduler.facts import ReplicaFacts

ASK_AGAIN_S = 10.0  # a start that was asked for and isn't seen was lost, or waits
SILENT_S = 15.0  # a replica without lease and report for so long is ended


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take, in seconds."""

    start_s: float = 300.0
    drain_s: float = 660.0


@dataclass(frozen=True, slots=True)
class Verdict:
    what: Literal["ready", "failed", "gone", "ask", "remind"]
    reason: str = ""
    permanent: bool = False  # starting again can't help


def judge(
    replica: ReplicaFacts, now: float, silent_s: float, limits: Limits, *, driver_heard: bool
) -> Verdict | None:
    """None: as it was. `silent_s`: for how long its lease was not seen alive."""
    if replica.state == ReplicaState.STARTING:
        return _starting(replica, now, limits, driver_heard)
    return _serving(replica, now, silent_s, limits, driver_heard)


def _starting(
    replica: ReplicaFacts, now: float, limits: Limits, driver_heard: bool
) -> Verdict | None:
    process, seen = replica.process, replica.seen
    if replica.alive:
        return Verdict("ready")
    if seen is not None and seen.report.phase == "failed":
        return Verdict("failed", seen.report.error or "", seen.report.permanent)
    if process is not None and not process.alive:
        return Verdict("failed", f"The replica died at start. {process.log_tail}".strip())
    if now - replica.created_at > limits.start_s:
        waits_for = replica.trouble or (process.log_tail if process is not None else "")
        told = f"It was not ready after {limits.start_s:g} s. {waits_for}"
        return Verdict("failed", told.strip())
    if driver_heard and process is None and now - replica.asked_at > ASK_AGAIN_S:
        return Verdict("ask")
    return None


def _serving(
    replica: ReplicaFacts, now: float, silent_s: float, limits: Limits, driver_heard: bool
) -> Verdict | None:
    process, seen = replica.process, replica.seen
    draining = replica.state == ReplicaState.DRAINING
    if replica.alive:
        if draining and now - replica.asked_at > limits.drain_s:
            return Verdict("gone", "draining took too long")
        if draining and seen is not None and not seen.ordered_to_drain:
            return Verdict("remind")  # an incarnation that came after the order
        return None
    if seen is not None and seen.report.phase == "exited":
        return Verdict("gone", "it drained" if draining else "it left")
    if driver_heard and (process is None or not process.alive):
        tail = process.log_tail if process is not None else ""
        return Verdict("gone", f"it died. {_last_words(tail)}")
    if silent_s > SILENT_S:
        return Verdict("gone", "it was silent for too long")
    return None


def _last_words(log: str) -> str:
    """What its log ends with, unless that tells nothing of a death."""
    lines = log.strip().splitlines()
    if not lines or " INFO " in lines[-1]:
        return "Its log says nothing of it: it was killed, or the machine is out of memory."
    return "\n".join(lines)[-500:]
