"""Each Triton kernel compiles for real GPUs in bfloat16 and fits into their shared memory.

The compiler needs no GPU; what it makes is not run here. In a process of its own: in this one the
kernels are interpreted.
"""

import json
import os
import subprocess
import sys

import pytest

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes a block, of an A100 and an H100
SMALL = ("join", "rope")  # a row is too short for wide loads


@pytest.mark.parametrize("arch", SHARED_LIMIT)
def test_kernels_compile(arch: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kernels.gpu.build", str(arch)],
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = json.loads(done.stdout)
    too_large = {k: v for k, v in kernels.items() if v["shared"] > SHARED_LIMIT[arch]}
    assert not too_large, too_large
    wide = {k: v["wide_loads"] for k, v in kernels.items() if not k.startswith(SMALL)}
    assert wide and all(wide.values()), wide
