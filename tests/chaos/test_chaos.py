"""The short chaos run: nothing is lost, doubled, wrong, stuck or leaked while things break."""

import pytest

from benchmarks.chaos.run import run
from benchmarks.chaos.verdict import FAULTS_OF_BOOKS, FAULTS_OF_DELIVERY
from loraplex.store.models import ModelStore

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(900)
def test_a_hundred_requests_through_ten_faults(model_store: ModelStore, smollm2: object) -> None:
    result = run(seed=6, requests=100, faults=10, models=model_store)
    assert result["faults"] == 10
    faults = FAULTS_OF_DELIVERY + FAULTS_OF_BOOKS
    assert {kind: result[kind] for kind in faults} == dict.fromkeys(faults, 0)
