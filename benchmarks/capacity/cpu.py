"""What a process has used of the CPU, so that it doesn't matter who shares the machine."""

import psutil


def cpu_s(process: psutil.Process) -> float:
    """User and system, seconds."""
    return float(sum(process.cpu_times()[:2]))
