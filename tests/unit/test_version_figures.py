"""How versions do, by their usage records."""

from dataclasses import dataclass

from loraplex.version_figures import figures


@dataclass
class Record:
    adapter: str = "a/1"
    prompt_tokens: int = 10
    completion_tokens: int = 5
    queue_s: float = 0.0
    first_token_s: float | None = 1.0
    duration_s: float = 3.0
    status: str = "stop"


def test_versions_are_counted_apart_and_failures_do_not_count_as_fast() -> None:
    failed = Record(status="error", first_token_s=None, duration_s=0.0, completion_tokens=0)
    slow = Record(first_token_s=2.0, duration_s=4.0)
    one, two, ten = figures([Record("a/10"), Record(), slow, failed, Record("a/2")])
    assert [each.version for each in (one, two, ten)] == ["a/1", "a/2", "a/10"]
    assert (one.answers, one.failed, one.completion_tokens) == (3, 1, 10)
    assert (one.first_token_p50_s, one.first_token_p95_s) == (2.0, 2.0)
    assert one.tokens_per_s_p50 == 2.0
    assert two.first_token_p50_s == 1.0


def test_nothing_is_known_of_what_never_answered() -> None:
    (only,) = figures([Record(status="error", first_token_s=None)])
    assert only.first_token_p50_s is only.tokens_per_s_p50 is only.duration_p50_s is None
