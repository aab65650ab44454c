"""A port of its own for each process' metrics, and the list of these ports in Redis: Prometheus
finds processes that come and go by `/api/v1/metrics/targets` (http_sd_configs)."""

import logging
import os
import socket
import threading
import time

import msgspec
import redis
from prometheus_client import start_http_server
from prometheus_client.registry import CollectorRegistry

from loraplex.broker.connection import Unavailable
from loraplex.keys import TARGETS
from loraplex.metrics.target import TOLD_EACH_S, Target
from loraplex.settings import Settings

log = logging.getLogger(__name__)


def serve(
    registry: CollectorRegistry,
    settings: Settings,
    client: "redis.Redis",
    process: str,
    *,
    replica: str = "",
    deployment: str = "",
) -> str:
    """Until the process ends. Returns the address; "" where metrics are switched off, or the port
    is taken: serving requests matters more."""
    if not settings.metrics:
        return ""
    try:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as taken:
        log.warning("metrics are not served: %s", taken)
        return ""
    anywhere = settings.metrics_host in ("", "0.0.0.0", "::")  # noqa: S104
    host = socket.gethostname() if anywhere else settings.metrics_host
    address = f"{host}:{server.server_port}"
    name = f"{socket.gethostname()}/{os.getpid()}"

    def tell() -> None:
        while True:
            target = Target(address, process, time.time(), replica, deployment)
            try:
                client.hset(TARGETS, name, msgspec.json.encode(target).decode())
            except Unavailable as away:
                log.debug("where metrics are is not told: %s", away)
            time.sleep(TOLD_EACH_S)

    threading.Thread(target=tell, name="metrics-target", daemon=True).start()
    return address
