"""The warm parent: what it forks is as if started by itself, and without it starts go on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loraplex import warm
from loraplex.settings import Settings
from scheduler.drivers.base import ReplicaSpec
from scheduler.drivers.process import ProcessDriver
from tests.e2e.running import until

LANE = "org/model#dep-1"


@pytest.fixture
def settings(tmp_path: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LORAPLEX_REDIS_URL", valkey_url)
    monkeypatch.setenv("LORAPLEX_HOME", str(tmp_path))
    return Settings()


@pytest.fixture
def parent(settings: Settings) -> Iterator[psutil.Process]:
    """Ready to fork."""
    command = [sys.executable, "-m", "gpu_worker.warm_parent"]
    with (settings.home / "warm.log").open("w") as log:
        started = subprocess.Popen(command, stdout=log, stderr=log)
    until(lambda: (settings.home / "replicas" / warm.SOCKET).exists(), bool)
    yield psutil.Process(started.pid)
    if started.poll() is None:
        started.terminate()
    assert started.wait(10) in (0, -signal.SIGKILL)


def begin(settings: Settings, replica: str, **own: str) -> ProcessDriver:
    driver = ProcessDriver(settings)
    driver.start(ReplicaSpec(replica, LANE, settings=own))
    return driver


def start(settings: Settings, replica: str, **own: str) -> tuple[ProcessDriver, psutil.Process]:
    """One that lives: by a silent Redis, or from scratch."""
    driver = begin(settings, replica, **own)
    record = json.loads((settings.home / "replicas" / f"{replica}.json").read_text())
    return driver, psutil.Process(record["pid"])


def log_of(settings: Settings, replica: str) -> str:
    return (settings.logs_dir / "replicas" / f"{replica}.log").read_text()


def test_a_forked_replica_has_its_own_log_session_arguments_and_settings(
    settings: Settings, parent: psutil.Process, silent_redis: dict[str, str]
) -> None:
    driver, process = start(settings, "rep-1", **silent_redis)
    assert process.ppid() == parent.pid
    assert os.getsid(process.pid) == process.pid
    begin(settings, "rep-2", LORAPLEX_LEASE_S="0.5")
    until(lambda: log_of(settings, "rep-2"), lambda text: "LEASE_S" in text)  # 1 s is the least
    assert "LEASE_S" not in (settings.home / "warm.log").read_text() + log_of(settings, "rep-1")
    for replica in ("rep-1", "rep-2"):
        driver.stop(replica)


def test_it_holds_its_lock_and_is_a_failed_replica_like_any_other(
    settings: Settings, parent: psutil.Process, silent_redis: dict[str, str]
) -> None:
    driver, process = start(settings, "rep-1", **silent_redis)
    assert process.ppid() == parent.pid
    assert [each.alive for each in ProcessDriver(settings).list()] == [True]
    driver.stop("rep-1")
    begin(settings, "rep-2")
    (ended,) = until(driver.list, lambda found: not found[0].alive)  # there is no such model
    assert "org/model" in ended.log_tail
    assert "gpu_worker[rep-2]" in log_of(settings, "rep-2")
    until(parent.children, lambda left: not left)  # no zombie
    driver.stop("rep-2")


def test_two_starts_of_an_id_are_one(
    settings: Settings, parent: psutil.Process, silent_redis: dict[str, str]
) -> None:
    first, process = start(settings, "rep-1", **silent_redis)
    _, same = start(settings, "rep-1", **silent_redis)
    assert same.pid == process.pid
    assert len(parent.children()) <= 1
    first.stop("rep-1")
    until(parent.children, lambda left: not left)


def test_stop_ends_a_forked_replica_and_the_parent_goes_on(
    settings: Settings, parent: psutil.Process, silent_redis: dict[str, str]
) -> None:
    for replica in ("rep-1", "rep-2"):
        driver, process = start(settings, replica, **silent_redis)
        driver.stop(replica)
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert driver.list() == []
    assert parent.is_running()


def test_without_the_parent_a_replica_starts_from_scratch(
    settings: Settings, parent: psutil.Process
) -> None:
    parent.kill()  # its socket stays
    parent.wait()
    driver, process = start(settings, "rep-1")
    assert process.ppid() == os.getpid()
    assert "--replica" in process.cmdline()
    driver.stop("rep-1")


def test_a_parent_that_hangs_delays_a_start_and_runs_nothing_later(
    settings: Settings, parent: psutil.Process
) -> None:
    parent.suspend()
    driver, process = start(settings, "rep-1")
    assert process.ppid() == os.getpid()
    parent.resume()
    until(parent.children, lambda left: not left)
    until(lambda: driver.list()[0].alive, lambda alive: not alive)  # there is no such model
    assert log_of(settings, "rep-1").count("replica failed") == 1
    driver.stop("rep-1")


def test_what_libraries_have_read_already_is_refused(
    settings: Settings, parent: psutil.Process
) -> None:
    driver, process = start(settings, "rep-1", OMP_NUM_THREADS="7")
    assert process.ppid() == os.getpid()
    assert "had to be set before" in (settings.home / "warm.log").read_text()
    driver.stop("rep-1")


def test_replicas_outlive_a_killed_parent(
    settings: Settings, parent: psutil.Process, silent_redis: dict[str, str]
) -> None:
    """The supervisor starts it again; what it had forked serves on."""
    driver, _ = start(settings, "rep-1", **silent_redis)
    parent.kill()
    parent.wait()
    assert ProcessDriver(settings).list()[0].alive
    driver.stop("rep-1")


def test_the_socket_is_for_its_owner_only_and_goes_with_the_parent(
    settings: Settings, parent: psutil.Process
) -> None:
    file = settings.home / "replicas" / warm.SOCKET
    assert file.stat().st_mode & 0o777 == 0o600
    parent.terminate()
    parent.wait(10)
    until(file.exists, lambda exists: not exists)
