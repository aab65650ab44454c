"""Hosts and how many replicas each may run."""

import logging
import subprocess

import psutil

from loraplex.settings import ScalerSettings
from scheduler.placement import Fleet

log = logging.getLogger(__name__)


def fleet_of(settings: ScalerSettings) -> Fleet:
    """As it was set; else this machine: its GPUs, or as many replicas as its memory holds."""
    if settings.fleet:
        return Fleet(settings.fleet)
    places = _gpus() or _by_memory(settings.replica_memory_gib)
    log.info("room for %d replicas (LORAPLEX_FLEET sets it)", places)
    return Fleet({"local": places})


def _gpus() -> int:
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"],  # noqa: S607  (wherever the driver has put it)
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except FileNotFoundError:
        return 0  # no GPU here
    except (OSError, subprocess.TimeoutExpired) as silent:
        log.warning("the GPUs can't be counted, LORAPLEX_FLEET says how many: %s", silent)
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def _by_memory(replica_gib: float) -> int:
    return max(1, int(psutil.virtual_memory().total / 2**30 / replica_gib))
