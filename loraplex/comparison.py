"""What other scaling laws would have made of a deployment's traffic: written by a task of the
scheduler, read by the API."""

import msgspec


class LawResult(msgspec.Struct, array_like=True, frozen=True):
    law: str
    replica_seconds: float
    starts: int
    wait_p50_s: float
    wait_p95_s: float
    within_target: float  # share of requests that waited no longer than the deployment's target


class Comparison(msgspec.Struct, array_like=True, frozen=True, tag="comparison.1"):
    at: float  # Unix seconds
    requests: int
    seconds: float  # that they came in
    slots: int  # of a replica
    cold_start_s: float
    target_wait_s: float
    laws: list[LawResult]  # ours first
    error: str = ""  # why there is nothing to compare


decode_comparison = msgspec.msgpack.Decoder(Comparison).decode
