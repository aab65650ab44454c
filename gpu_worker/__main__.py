"""`python -m gpu_worker --replica ID --lane LANE`: one replica as a process."""

import argparse
import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from redis import Redis

from gpu_worker.base_model import base_model, in_home
from gpu_worker.engine.request import ModelRefused
from gpu_worker.log_lines import LaneLog
from gpu_worker.prefetch import Prefetch
from gpu_worker.split import Split
from loraplex import tracing
from loraplex.broker.connection import Unavailable, connect
from loraplex.broker.interface import Fenced
from loraplex.broker.worker import WorkerBroker
from loraplex.keys import Lane
from loraplex.logs import configure, logs_to
from loraplex.messages import ReplicaReport
from loraplex.store.models import ModelUnavailable
from loraplex.unknown_settings import checked
from loraplex.worker_settings import WorkerSettings

if TYPE_CHECKING:
    from gpu_worker.engine.arriving import Arriving
    from gpu_worker.engine.engine import Engine
    from gpu_worker.metrics import ReplicaMetrics

log = logging.getLogger("gpu_worker")

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h: starting again can't help
GIVE_UP_WITHOUT_REDIS_S = 120


def main(arguments: Sequence[str] | None = None, began: float | None = None) -> int:
    """`began`: when this process did, where it is a fork (Unix seconds)."""
    parser = argparse.ArgumentParser(prog="gpu_worker", description=__doc__)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--lane", required=True, type=Lane.parse)
    parser.add_argument("--asked-at", type=float, help="Unix seconds: when it was asked for.")
    options = parser.parse_args(arguments)
    with checked():
        settings = WorkerSettings()
    configure(f"gpu_worker[{options.replica}]", settings.log_level, settings.log_format)
    redis = connect(settings.redis_url)
    broker = WorkerBroker(redis, options.lane, f"{options.replica}:0", settings.lease_s)
    end_tracing = tracing.configure("replica", settings)
    lane_log = logs_to(LaneLog(broker, options.replica))
    split = Split(options.asked_at, _began() if began is None else began)
    try:
        broker.report(ReplicaReport(options.replica, "loading", time.time()))
        return _serve(settings, broker, redis, options, split)
    except Exception as failed:  # the outermost loop: report, then die
        log.exception("replica failed")
        refused = isinstance(failed, (ModelRefused, ModelUnavailable))
        error = str(failed) if refused else f"{type(failed).__name__}: {failed}"
        report = ReplicaReport(
            options.replica, "failed", time.time(), error=error, permanent=refused
        )
        broker.report(report)
        return EXIT_REFUSED if refused else 1
    finally:
        lane_log.close()
        end_tracing()


def _began() -> float:
    """When this process did. Linux tells it to a hundredth of a second since the machine's boot."""
    if not sys.platform.startswith("linux"):
        return psutil.Process().create_time()
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def _load(settings: WorkerSettings, broker: WorkerBroker, split: Split) -> "Engine":
    """The engine. Its weights begin to come, where they aren't here, before anything is imported;
    meanwhile the files of the adapters that are waited for are read, too."""
    name = broker.lane.base_model
    with base_model(settings, name) as (folder, arriving):
        from gpu_worker.engine.arriving import NotArrived

        try:
            return _engine(settings, broker, split, folder, arriving)
        except NotArrived as broken:
            if (home := in_home(settings, name)) is None:
                raise
            log.warning("the home folder's is used: %s", broken)
            return _engine(settings, broker, split, home, None)


def _engine(
    settings: WorkerSettings,
    broker: WorkerBroker,
    split: Split,
    folder: Path,
    arriving: "Arriving | None",
) -> "Engine":
    import torch

    from gpu_worker.engine.config import EngineConfig
    from gpu_worker.engine.engine import Engine

    split.imported()
    torch.set_num_threads(settings.threads)
    config = EngineConfig(
        device=settings.device,
        dtype=settings.dtype,
        max_running=settings.max_running,
        max_step_tokens=settings.max_step_tokens,
        kv_cache_gib=settings.kv_cache_gib,
        max_adapters=settings.max_adapters,
        adapter_cache_gib=settings.adapter_cache_gib,
        deterministic=settings.deterministic,
        findings=settings.findings_dir,
    )
    locate = _locate(settings)
    Prefetch(broker, locate)
    engine = Engine(folder, config, locate, arriving)
    for name, digest in settings.preload.items():
        log.info("preloading adapter %s", name)
        engine.adapters.pin(digest)  # one that can't be loaded is told to who asks for it
    split.loaded()
    log.info("ready after %.1f s", split.ready_after_s)
    return engine


def _locate(settings: WorkerSettings) -> Callable[[str], Path]:
    """An adapter's folder by its digest: the store's own, or a copy on a disk of this machine."""
    from loraplex.store.adapter_cache import AdapterCache, Folders, Source
    from loraplex.store.adapter_folders import AdapterFolders
    from loraplex.store.remote_adapters import remote_of

    locate, disk = AdapterFolders(settings.adapters_dir).folder, settings.adapter_disk
    remote = remote_of(settings)
    source: Source = remote or Folders(locate)
    if remote is not None:
        disk = disk or settings.home / "adapter-copies"
    if disk is None:
        return locate
    return AdapterCache(source, disk, int(settings.adapter_disk_gib * 2**30)).folder


def _serve(
    settings: WorkerSettings,
    broker: WorkerBroker,
    redis: Redis,
    options: argparse.Namespace,
    split: Split,
) -> int:
    engine = _load(settings, broker, split)
    from gpu_worker.metrics import ReplicaMetrics
    from gpu_worker.vitals import machine_of
    from loraplex.metrics.served import serving_metrics

    metrics = ReplicaMetrics(engine, machine_of(engine.device) if settings.metrics else None)
    of = {"replica": options.replica, "deployment": options.lane.deployment_id}
    with serving_metrics(metrics.registry(), settings, redis, "replica", **of):
        return _work(settings, engine, metrics, redis, options, split)


def _work(
    settings: WorkerSettings,
    engine: "Engine",
    metrics: "ReplicaMetrics",
    redis: Redis,
    options: argparse.Namespace,
    split: Split,
) -> int:
    """One incarnation after another."""
    from gpu_worker.worker import Worker

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    redis_away_since: float | None = None
    unresigned: list[str] = []  # incarnations that ended while Redis was away
    for incarnation in itertools.count():
        lane, name = options.lane, f"{options.replica}:{incarnation}"
        broker = WorkerBroker(redis, lane, name, settings.lease_s, settings.retention_s)
        worker = Worker(
            engine,
            broker,
            options.replica,
            stop,
            max_deliveries=settings.max_deliveries,
            split=split,
            metrics=metrics,
        )
        try:
            while unresigned:
                broker.resign(unresigned[0])
                del unresigned[0]
            unresigned.append(name)
            worker.run()
            return 0
        except Fenced:
            log.warning("fenced: the lease ran out, its jobs were dropped")
        except Unavailable as away:
            # What it owned is reclaimed, by its next incarnation or another replica, unsuspected.
            if worker.served or redis_away_since is None:
                redis_away_since = time.monotonic()
            if stop.is_set() or time.monotonic() - redis_away_since > GIVE_UP_WITHOUT_REDIS_S:
                raise
            log.warning("Redis is away, trying again: %s", away)
            time.sleep(random.uniform(0.1, 1.0))
            continue
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
