"""Models that are put together before a replica is forked: the same, once, and only while it is."""

import threading
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from gpu_worker.engine.assembled import Assembled
from gpu_worker.engine.weights import assemble
from tests.integration.test_admission_probe import LLAMA, save

HALF = torch.bfloat16


def saved(folder: Path, **changes: int) -> Path:
    """Beside what is there, as the store replaces models: what is mapped isn't written over."""
    for file in folder.iterdir():
        file.unlink()
    return save("llama", LLAMA | changes | {"dtype": "bfloat16"}, folder)


def test_a_kept_model_is_the_same_and_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = saved(tmp_path), Assembled()
    assert kept.missing(folder)
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # as the warm parent has it
    transformers_logging.disable_progress_bar()
    before = set(threading.enumerate())
    kept.keep(folder, lambda: assemble(folder, "auto"))
    transformers_logging.enable_progress_bar()
    assert set(threading.enumerate()) <= before
    assert not kept.missing(folder)
    model = kept.take(folder, HALF)
    assert model is not None
    again = assemble(folder, HALF).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert kept.take(folder, HALF) is None


def test_another_dtype_or_other_files_are_another_model(tmp_path: Path) -> None:
    folder, kept = saved(tmp_path), Assembled()
    kept.keep(folder, lambda: assemble(folder, "auto"))
    assert kept.take(folder, torch.float32) is None
    kept.keep(folder, lambda: assemble(folder, "auto"))
    saved(tmp_path, intermediate_size=40)
    assert kept.missing(folder)
    assert kept.take(folder, HALF) is None
    kept.keep(folder, lambda: assemble(folder, "auto"))
    for file in folder.iterdir():
        file.unlink()
    kept.forget_gone()
    assert kept.take(folder, HALF) is None


def test_what_can_not_be_assembled_is_tried_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    kept = Assembled()
    kept.keep(tmp_path, lambda: assemble(tmp_path, "auto"))
    assert not kept.missing(tmp_path)
    assert kept.take(tmp_path, HALF) is None
