"""The GPU benchmark runs, and finds no wrong kernel: in small, by Triton's interpreter."""

from pathlib import Path

import torch

from benchmarks.gpu import kernels, steps


def test_kernels_are_right() -> None:
    found = kernels.measure(kernels.TINY, torch.device("cpu"), torch.float32)
    assert set(found) == set(kernels.CASES)
    assert all(r["max_abs_err"] < 1e-4 for r in found.values()), found


def test_steps_are_measured(tmp_path: Path) -> None:
    plan = steps.Plan((1, 2), (0, 2), prompt=3, steps=4, rounds=1)
    result = steps.measure(steps.TINY, tmp_path, "interpreter", "float32", plan)
    assert set(result) == {"1", "2"}
    alone = {"base_ms", "floor_ms", "over_floor", "host_share", "sampled_ms"}
    assert (set(result["1"]), set(result["2"])) == (alone, alone | {"overhead_2"})
