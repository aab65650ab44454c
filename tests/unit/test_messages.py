"""The wire format: encoded bytes are pinned, so that a change is a decision."""

import msgspec
import pytest

from loraplex.keys import Lane
from loraplex.messages import (
    NO_ENTRY,
    Account,
    Cancel,
    ColdStart,
    Job,
    ReplicaReport,
    Sampling,
    Step,
    TokenEvent,
    Usage,
    decode_cancel,
    decode_job,
    decode_report,
    decode_step,
    decode_usage,
    encode,
)

JOB = Job("r1", "api-1", "dev", "ab12", [1, 300], Sampling(5, 7, 0.5), 2.0)
STEP = Step("rep:0", [TokenEvent("r1", 3, [9, 400], "stop")])


def test_job_bytes_are_pinned() -> None:
    assert encode(JOB).hex() == (
        "9ba56a6f622e31a27231a56170692d31a3646576a4616231329201cd012cdc0012aa73616d706c"
        "696e672e310507cb3fe0000000000000cb3ff000000000000000cb0000000000000000c20090cb"
        "3ff0000000000000cb0000000000000000cb000000000000000080c0c0c0c0cb40000000000000"
        "0094a0a0c3a0c2a0"
    )
    assert decode_job(encode(JOB)) == JOB


def test_step_bytes_are_pinned() -> None:
    assert encode(STEP).hex() == (
        "94a6737465702e31a57265703a30919aa2723103920" + "9cd0190a473746f70c0c0c0c000c0a0"
    )
    assert decode_step(encode(STEP)) == STEP


def test_report_bytes_are_pinned() -> None:
    report = ReplicaReport("rep", "ready", 1.5, cold_start=ColdStart(0.5, 0.25, 2.0))
    assert encode(report).hex() == (
        "dc0015a97265706c6963612e31a3726570a57265616479cb3ff80000000000000000cb00000000"
        "000000000000000090c0c2cb000000000000000094cb3fe0000000000000cb3fd0000000000000"
        "cb4000000000000000cb0000000000000000000000cb000000000000000094a0cb000000000000"
        "00000000"
    )
    assert decode_report(encode(report)) == report


def test_an_encoded_step_ends_with_room_for_its_journal_entry() -> None:
    """`commit.lua` writes it there, without knowing the rest of the bytes."""
    raw = encode(Step("rep:0", STEP.events, NO_ENTRY))
    entry = "1700000000000-12".ljust(len(NO_ENTRY))
    assert decode_step(raw[: -len(NO_ENTRY)] + entry.encode()) == Step("rep:0", STEP.events, entry)


def test_newer_messages_with_more_fields_are_read() -> None:
    """What a release that knows one field more writes."""
    event = ["r1", 0, [5], None, None, None, None, None, 0, None, "new"]
    assert decode_step(encode(["step.1", "rep:0", [event], "", "new"])) == Step(
        "rep:0", [TokenEvent("r1", 0, [5])]
    )
    with pytest.raises(msgspec.DecodeError):
        decode_step(encode(["step.2", "rep:0", []]))


def test_older_messages_without_newer_fields_are_read() -> None:
    assert decode_step(encode(["step.1", "rep:0", [["r1", 0, [5]]]])) == Step(
        "rep:0", [TokenEvent("r1", 0, [5])]
    )
    assert decode_report(encode(["replica.1", "rep", "ready", 1.5])) == ReplicaReport(
        "rep", "ready", 1.5
    )


def test_cancel_round_trip() -> None:
    assert decode_cancel(encode(Cancel("r1"))) == Cancel("r1")
    assert decode_cancel(encode(["cancel.1", "r1"])) == Cancel("r1"), "of an earlier release"


def test_usage_bytes_are_pinned() -> None:
    usage = Usage("r1", "dev", Account("key-1", "pirate/1"), 1.5, 3, 2, 7, 0.5, 0.75, 2.0, "length")
    assert encode(usage).hex() == (
        "9da775736167652e31a27231a364657694a56b65792d31a87069726174652f31c3a0cb3ff80000"
        "00000000030207cb3fe0000000000000cb3fe8000000000000cb4000000000000000a66c656e67"
        "7468a0"
    )
    assert decode_usage(encode(usage)) == usage


def test_a_lane_is_keyed_by_base_model_and_its_keys_share_a_slot() -> None:
    lane = Lane("org/model", "dep-1")
    assert Lane.parse(lane.name) == lane
    keys = (lane.jobs, lane.journal, lane.gate, lane.reports, lane.lease_prefix + "x")
    assert all(key.startswith("lpx:{org/model#dep-1}:") for key in keys)
    with pytest.raises(ValueError, match="not a lane"):
        Lane.parse("org/model")


def test_an_event_of_several_tokens_is_as_many_of_one() -> None:
    event = TokenEvent("r1", 3, [7, 8, 9], "stop", cached=4)
    parts = event.each_token()
    assert [(p.position, p.tokens, p.finish, p.cached) for p in parts] == [
        (3, [7], None, 4),
        (4, [8], None, 0),
        (5, [9], "stop", 0),
    ]
    whole = parts[0].followed_by(parts[1]).followed_by(parts[2])
    assert whole == event
    end = TokenEvent("r1", 3, [], "length")
    assert end.each_token() == [end]
