"""The whole HTTP surface: no input makes a 5xx, no altered key or id opens anything."""

import pytest

from benchmarks.surface.__main__ import measure

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(900)
def test_no_5xx_and_nobody_gets_in(smollm2: object) -> None:
    result = measure(quick=True)
    assert result["operations"] > 70 and result["cases"] > 5_000
    assert (result["failures"], result["unauthorised"]) == (0, 0)
