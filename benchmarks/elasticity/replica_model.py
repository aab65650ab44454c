"""What a replica is in virtual time: slots, and how long a request holds one.

Round numbers of an 8B model on one GPU; no slowdown by the batch. All laws meet the same ones.
"""

from typing import Protocol

SLOTS = 16  # requests that a replica runs at once
PREFILL_TOKENS_S = 4000.0
OUTPUT_TOKEN_S = 0.03  # seconds a token


class Sized(Protocol):
    @property
    def prompt(self) -> int: ...
    @property
    def output(self) -> int: ...


def hold_s(request: Sized) -> float:
    """Seconds for which a request holds its slot."""
    return request.prompt / PREFILL_TOKENS_S + request.output * OUTPUT_TOKEN_S
