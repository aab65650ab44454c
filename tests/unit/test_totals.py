"""Counters and histograms of answers: what is kept is what was counted, in whatever portions."""

from hypothesis import given
from hypothesis import strategies as st

from loraplex.totals import SECONDS, Answer, count, from_json

ANSWERS = st.lists(
    st.builds(
        Answer,
        status=st.sampled_from(["stop", "length", "error", "cancelled"]),
        error=st.sampled_from(["", "expired"]),
        queue_s=st.floats(0, 100),
        first_token_s=st.none() | st.floats(0, 100),
        duration_s=st.floats(0, 10_000),
        prompt_tokens=st.integers(0, 10**6),
        completion_tokens=st.integers(0, 10**6),
    )
)


@given(ANSWERS, ANSWERS)
def test_portions_add_up(first: list[Answer], second: list[Answer]) -> None:
    once = from_json(count(None, [*first, *second]))
    apart = from_json(count(count(None, first), second))
    summed = from_json(count(None, first), count(None, second))
    for each in (apart, summed):
        assert (each.ended, each.errors) == (once.ended, once.errors)
        assert {n: h.counts for n, h in each.histograms.items()} == {
            n: h.counts for n, h in once.histograms.items()
        }
    assert sum(once.ended.values()) == sum(once.histograms["duration_s"].counts)
    assert sum(once.errors.values()) == once.ended.get("error", 0)


def test_a_bound_belongs_to_its_bucket_and_other_releases_bounds_are_left_out() -> None:
    answer = Answer("stop", "", 0.0, None, SECONDS[3], 1, 0)
    kept = count(None, [answer])
    assert kept["histograms"]["duration_s"]["counts"][3] == 1
    assert sum(kept["histograms"]["per_token_s"]["counts"]) == 0
    kept["histograms"]["duration_s"]["counts"] = [1, 2]
    kept["histograms"]["other"] = {"counts": [1], "sum": 1.0}
    found = from_json(kept)
    assert sum(found.histograms["duration_s"].counts) == 0 and found.ended == {"stop": 1}
