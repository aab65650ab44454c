"""How busy the machine under this replica is: its GPU by NVML, or its CPU where it has none."""

import logging
import os
from typing import Any, Protocol

import psutil

from loraplex.messages import Vitals

log = logging.getLogger(__name__)


class Machine(Protocol):
    def read(self) -> Vitals: ...


class Cpu:
    """This process' share of all cores since the last look, and its memory."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first look has nothing to compare with
        self._total = psutil.virtual_memory().total

    def read(self) -> Vitals:
        share = self._process.cpu_percent() / 100 / (os.cpu_count() or 1)
        used = self._process.memory_info().rss
        return Vitals("cpu", round(min(1.0, share), 4), used, self._total)


class Gpu:
    """What NVML says of one GPU, also of what other processes do there."""

    def __init__(self, uuid: str) -> None:
        """Raises ImportError or pynvml.NVMLError where NVML isn't there."""
        import pynvml

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def read(self) -> Vitals:
        share = self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100
        memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return Vitals("cuda", share, int(memory.used), int(memory.total))


def machine_of(device: Any) -> Machine:
    """`device`: the engine's torch.device."""
    if device.type != "cuda":
        return Cpu()
    import torch

    # By its id: an index is of those that this process may see.
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    try:
        gpu = Gpu(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        gpu.read()  # a slice of a GPU (MIG) has no utilization
        return gpu
    except Exception as failed:  # NVML makes its errors at run time; a replica serves without it
        log.warning("the GPU's utilization is not known, the CPU's is told instead: %s", failed)
        return Cpu()
