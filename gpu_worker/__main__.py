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

import psutil
from redis import Redis

from gpu_worker.engine.request import ModelRefused
from loraplex.broker.connection import Unavailable, connect
from loraplex.broker.interface import Fenced
from loraplex.broker.worker import WorkerBroker
from loraplex.keys import Lane
from loraplex.logs import configure
from loraplex.messages import ReplicaReport
from loraplex.settings import WorkerSettings
from loraplex.store.models import ModelStore, ModelUnavailable

log = logging.getLogger("gpu_worker")

EXIT_REFUSED = 78  # EX_CONFIG of sysexits.h: starting again can't help
GIVE_UP_WITHOUT_REDIS_S = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_worker", description=__doc__)
    parser.add_argument("--replica", required=True)
    parser.add_argument("--lane", required=True, type=Lane.parse)
    options = parser.parse_args()
    settings = WorkerSettings()
    configure(f"gpu_worker[{options.replica}]", settings.log_level)
    redis = connect(settings.redis_url)
    broker = WorkerBroker(redis, options.lane, f"{options.replica}:0", settings.lease_s)
    try:
        broker.report(ReplicaReport(options.replica, "loading", time.time()))
        return _serve(settings, redis, options)
    except Exception as failed:  # the outermost loop: report, then die
        log.exception("replica failed")
        refused = isinstance(failed, (ModelRefused, ModelUnavailable))
        error = str(failed) if refused else f"{type(failed).__name__}: {failed}"
        report = ReplicaReport(
            options.replica, "failed", time.time(), error=error, permanent=refused
        )
        broker.report(report)
        return EXIT_REFUSED if refused else 1


def _serve(settings: WorkerSettings, redis: Redis, options: argparse.Namespace) -> int:
    import torch

    from gpu_worker.engine.config import EngineConfig
    from gpu_worker.engine.engine import Engine
    from gpu_worker.worker import Worker
    from loraplex.store.adapter_cache import AdapterCache
    from loraplex.store.adapters import AdapterStore

    torch.set_num_threads(settings.threads)
    models = ModelStore(settings.models_dir, allow_local=settings.allow_local_models)
    config = EngineConfig(
        device=settings.device,
        dtype=settings.dtype,
        max_running=settings.max_running,
        max_step_tokens=settings.max_step_tokens,
        kv_cache_gib=settings.kv_cache_gib,
        max_adapters=settings.max_adapters,
        adapter_cache_gib=settings.adapter_cache_gib,
        deterministic=settings.deterministic,
    )
    locate = AdapterStore(settings.adapters_dir).folder
    if settings.adapter_disk is not None:
        quota = int(settings.adapter_disk_gib * 2**30)
        locate = AdapterCache(locate, settings.adapter_disk, quota).folder
    engine = Engine(models.fetch(options.lane.base_model), config, locate)
    ready_after_s = time.time() - psutil.Process(os.getpid()).create_time()
    log.info("ready after %.1f s", ready_after_s)

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
            ready_after_s=ready_after_s,
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
    sys.exit(main())
