"""A port of its own for each process' metrics, and the list of these ports in Redis: Prometheus
finds processes that come and go by `/api/v1/metrics/targets` (http_sd_configs)."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import redis
from prometheus_client import start_http_server
from prometheus_client.registry import CollectorRegistry

from loraplex.broker.connection import Unavailable
from loraplex.keys import TARGETS
from loraplex.metrics.target import TOLD_EACH_S, Target
from loraplex.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def serving_metrics(
    registry: CollectorRegistry,
    settings: Settings,
    client: "redis.Redis",
    process: str,
    *,
    replica: str = "",
    deployment: str = "",
) -> Iterator[None]:
    """While the block runs. Where the port is taken it runs without: serving requests matters
    more."""
    address = _listen(registry, settings)
    if not address:
        yield
        return
    name = f"{socket.gethostname()}/{os.getpid()}"
    end = threading.Event()

    def tell() -> None:
        while not end.is_set():
            target = Target(address, process, time.time(), replica, deployment)
            try:
                client.hset(TARGETS, name, msgspec.json.encode(target).decode())
            except Unavailable as away:
                log.debug("where metrics are is not told: %s", away)
            end.wait(TOLD_EACH_S)
        try:
            client.hdel(TARGETS, name)
        except Unavailable as away:
            log.debug("the target is left to be forgotten: %s", away)

    teller = threading.Thread(target=tell, name="metrics-target", daemon=True)
    teller.start()
    try:
        yield
    finally:
        end.set()
        teller.join()


def _listen(registry: CollectorRegistry, settings: Settings) -> str:
    """Until the process ends. The address for others; "": nothing is served."""
    if not settings.metrics:
        return ""
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as taken:
        log.warning("metrics are not served: %s", taken)
        return ""
    anywhere = settings.metrics_host in ("", "0.0.0.0", "::")  # noqa: S104
    host = socket.gethostname() if anywhere else settings.metrics_host
    return f"{host}:{server.server_port}"
