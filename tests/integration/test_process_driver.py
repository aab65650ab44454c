"""The process driver: started once, seen alive by anybody until it ends, stopped for good."""

from pathlib import Path

import psutil
import pytest

from loraplex.settings import Settings
from scheduler.drivers.process import ProcessDriver
from tests.e2e.conftest import until


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LORAPLEX_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody: it ends by itself
    return Settings(home=tmp_path)


def test_a_replica_is_seen_until_it_ends_and_then_with_its_log(settings: Settings) -> None:
    starter, observer = ProcessDriver(settings), ProcessDriver(settings)
    starter.start("rep-1", "org/model#dep-1")
    starter.start("rep-1", "org/model#dep-1")
    children = [p for p in psutil.Process().children() if "rep-1" in p.cmdline()]
    assert len(children) == 1
    (seen,) = until(observer.list, lambda found: not found[0].alive)
    assert "Connection refused" in seen.log_tail
    starter.start("rep-1", "org/model#dep-1")  # it has been started: a row starts once
    assert not observer.list()[0].alive
    starter.stop("rep-1")
    assert observer.list() == []


def test_stop_ends_a_living_replica(settings: Settings) -> None:
    driver = ProcessDriver(settings)
    driver.start("rep-2", "org/model#dep-1")
    assert ProcessDriver(settings).list()[0].alive
    driver.stop("rep-2")
    assert driver.list() == []
