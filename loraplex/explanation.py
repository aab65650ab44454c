"""What a scaler's latest decision was and why: written by the scaler, read by the API."""

import msgspec


class Explanation(msgspec.Struct, array_like=True, frozen=True, tag="explanation.1"):
    at: float  # Unix seconds, Redis' clock
    wanted: int  # replicas, by the law
    allowed: int  # of them, those that the fleet has room for
    has: int  # starting and ready ones
    reason: str
    inputs: dict[str, float]
    would_change: list[str]  # what would lead to another number, a sentence each
    starting_since: float | None = None  # when the oldest replica that is not ready was asked for
    cold_start_s: float = 0.0  # how long that takes here


decode_explanation = msgspec.msgpack.Decoder(Explanation).decode
