"""Each answer of a request that a client has heard of is in the usage records, once."""

import asyncio
import time
from collections import Counter

from sqlmodel import Session, col, select

from benchmarks.chaos.platform import Platform
from benchmarks.chaos.verdict import Verdict
from loraplex.broker.cancellation import answer_id
from loraplex.database import connect
from loraplex.entities import UsageRecord

SETTLE_S = 30.0


async def look(platform: Platform, verdict: Verdict) -> None:
    """A request that was given up and sent again with its Idempotency-Key was run twice: then the
    first run's records say that they were cancelled."""
    wanted = {
        answer_id(request, index)
        for request, answers in verdict.requests.items()
        for index in range(answers)
    }
    deadline = time.monotonic() + SETTLE_S
    while wanted - _recorded(platform).keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
    found = _recorded(platform)
    for answer in sorted(wanted - found.keys()):
        verdict.blame("unrecorded", answer)
    for answer, times in found.items():
        if times > 1:
            verdict.blame("recorded_twice", f"{answer}: {times} times")


def _recorded(platform: Platform) -> Counter[str]:
    """Answer → records of it that aren't of a run that was given up."""
    with Session(connect(platform.database)) as session:
        wanted = select(UsageRecord.id).where(col(UsageRecord.status) != "cancelled")
        ended = Counter(name.partition("@")[0] for name in session.exec(wanted))
        every = {name.partition("@")[0] for name in session.exec(select(UsageRecord.id))}
    return Counter({name: ended[name] or 1 for name in every})
