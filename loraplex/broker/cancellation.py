"""What `cancel.lua` is called with, by API processes and by the scaler."""

from collections.abc import Sequence

from loraplex.keys import REPLY_PREFIX, Lane
from loraplex.messages import NO_ENTRY, Cancel, Step, TokenEvent, encode


def arguments(
    lane: Lane,
    request: str,
    entries: Sequence[str],
    leaver: str,
    *,
    unserved: bool = False,
    wanted: Sequence[int | None] = (),
) -> tuple[list[str], list[str | bytes]]:
    """Keys and arguments. `entries`: stream ids of the request's answers; `leaver`: '' cancels;
    `unserved`: what has been stopped is forgotten; `wanted`: of each answer, see `Cancel`."""
    keys = [lane.jobs, lane.journal, lane.request_prefix + request, lane.deaths, lane.usage]
    args: list[str | bytes] = [lane.control_prefix, lane.lease_prefix, REPLY_PREFIX, leaver]
    args.append("1" if unserved else "")
    for index, entry in enumerate(entries):
        answer = answer_id(request, index)
        event = TokenEvent(answer, 0, [], "cancelled")
        cancel = Cancel(answer, wanted[index] if wanted else None)
        args += [entry, encode(cancel), encode(Step("", [event], NO_ENTRY))]
    return keys, args


def answer_id(request: str, index: int) -> str:
    """The name of one of a request's answers, as its job has it."""
    return f"{request}.{index}" if index else request


def request_of(answer: str) -> str:
    return answer.partition(".")[0]
