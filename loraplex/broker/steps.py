"""Reading steps: out of the journal, and out of messages."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from loraplex.messages import Step, decode_step

log = logging.getLogger(__name__)


def readable(raw: bytes) -> Step | None:
    """None: another release wrote it. Who waits for its tokens finds that they are missing."""
    try:
        return decode_step(raw)
    except msgspec.DecodeError as foreign:
        log.warning("a step of another release is left out: %s", foreign)
        return None


def steps_of(entries: Iterable[Any]) -> Iterator[tuple[str, Step]]:
    """Journal entries as Redis gives them → id and step, of those that can be read."""
    for entry, fields in entries:
        step = readable(fields[b"s"])
        if step is not None:
            yield entry.decode(), step
