"""What the GPU path does on a real GPU: python -m benchmarks.gpu [--quick]

Correctness of each kernel first, then its bandwidth; then decode steps of an 8B- and a 1B-shaped
random model, base and with 8 and 64 adapters (r=16, every linear layer), over the floor.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.gpu import kernels, steps

ALLOWED = 2e-2  # of the largest expected value, in bfloat16


def measure(quick: bool) -> dict[str, Any]:
    device = torch.device("cuda")
    found = kernels.measure(kernels.Shape(), device, torch.bfloat16)
    report.table(
        f"Kernels on {torch.cuda.get_device_name()}",
        ("", "largest error", "us", "GB/s"),
        [(name, *r.values()) for name, r in found.items()],
    )
    wrong = {name for name, r in found.items() if not r["max_abs_err"] <= ALLOWED}
    if wrong:
        sys.exit(f"wrong results, so nothing else is measured: {', '.join(sorted(wrong))}")
    result: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "kernels": found}
    for shape, config in steps.SHAPES.items():
        folder = Path(tempfile.mkdtemp())
        plan = steps.QUICK if quick else steps.FULL
        try:
            result[shape] = steps.measure(config, folder, "cuda", "bfloat16", plan)
        finally:
            shutil.rmtree(folder)
        rows = [(batch, *row.values()) for batch, row in result[shape].items()]
        columns = max(result[shape].values(), key=len)
        padded = [row + ("",) * (len(columns) + 1 - len(row)) for row in rows]
        report.table(f"{shape}: decode steps", ("batch", *columns), padded)
    return result


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs an NVIDIA GPU and a CUDA build of torch")
    report.main("gpu", measure, ("torch", "transformers", "triton"))
