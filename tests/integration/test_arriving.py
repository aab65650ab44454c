"""A model whose weights come while it is put together: the same as one that is all there."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from gpu_worker.engine import arriving as under_test
from gpu_worker.engine.arriving import NotArrived
from gpu_worker.engine.request import ModelRefused
from gpu_worker.engine.weights import assemble, load
from tests.integration.test_admission_probe import LLAMA


class Coming:
    """A folder whose weights are zeros; their bytes come, in any order, once somebody waits."""

    def __init__(self, whole: Path, folder: Path, breaks_off: bool = False) -> None:
        folder.mkdir()
        self.waited: list[tuple[str, int]] = []
        self._coming = threading.Thread(target=self._come, daemon=True)
        self._breaks_off = breaks_off
        self._files = {file: folder / file.name for file in whole.iterdir()}
        for file, target in self._files.items():
            content = file.read_bytes()
            weights = file.suffix == ".safetensors"
            head = 8 + int.from_bytes(content[:8], "little") if weights else len(content)
            target.write_bytes(content[:head] + bytes(len(content) - head))

    def wait(self, file: Path, start: int, end: int) -> None:
        self.waited.append((file.name, start))
        self.wait_all()

    def wait_all(self) -> None:
        if self._breaks_off:
            raise OSError("the network is gone")
        if not self._coming.ident:
            self._coming.start()
        self._coming.join()

    def _come(self) -> None:
        blocks = [
            (file, target, start)
            for file, target in self._files.items()
            for start in range(0, file.stat().st_size, 1000)
        ]
        random.Random(3).shuffle(blocks)
        for file, target, start in blocks:
            with file.open("rb") as there, target.open("r+b") as here:
                there.seek(start)
                here.seek(start)
                here.write(there.read(1000))


def saved(folder: Path, **changes: Any) -> Path:
    config = AutoConfig.for_model("llama", **(LLAMA | changes))
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=changes.get("dtype"))
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def same(model: Any, whole: Path, dtype: torch.dtype) -> bool:
    there, here = assemble(whole, dtype).state_dict(), model.state_dict()
    return there.keys() == here.keys() and all(torch.equal(here[n], there[n]) for n in there)


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_put_together_before_its_weights_are_there(tmp_path: Path, tied: bool) -> None:
    whole = saved(tmp_path / "whole", dtype="bfloat16", tie_word_embeddings=tied)
    coming = Coming(whole, tmp_path / "here")
    loaded = load(tmp_path / "here", "cpu", "bfloat16", arriving=coming)
    assert same(loaded.model, whole, torch.bfloat16)
    assert len(coming.waited) == len(set(coming.waited)) == len(list(loaded.model.parameters()))
    assert coming.waited == sorted(coming.waited)


def test_what_is_converted_is_put_together_again(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", dtype="float32")
    loaded = load(tmp_path / "here", "cpu", "bfloat16", arriving=Coming(whole, tmp_path / "here"))
    assert same(loaded.model, whole, torch.bfloat16)


def test_what_fails_early_or_is_written_to_is_put_together_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = saved(tmp_path / "whole", dtype="bfloat16")
    times = 0

    def early(folder: Path, dtype: torch.dtype) -> Any:
        nonlocal times
        times += 1
        model = assemble(folder, dtype)
        if times == 1:
            next(model.parameters()).data += 1  # of zeros that will be something else
        return model

    monkeypatch.setattr("gpu_worker.engine.weights.assemble", early)
    loaded = load(tmp_path / "here", "cpu", "bfloat16", arriving=Coming(whole, tmp_path / "here"))
    assert times == 2
    assert same(loaded.model, whole, torch.bfloat16)

    def refuses(folder: Path, dtype: torch.dtype) -> Any:
        raise ModelRefused("nothing adds up")

    monkeypatch.setattr("gpu_worker.engine.weights.assemble", refuses)
    with pytest.raises(ModelRefused, match="nothing adds up"):
        load(tmp_path / "new", "cpu", "bfloat16", arriving=Coming(whole, tmp_path / "new"))


def test_a_system_that_does_not_tell_waits_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "SMAPS", tmp_path / "none")
    whole = saved(tmp_path / "whole", dtype="bfloat16")
    coming = Coming(whole, tmp_path / "here")
    loaded = load(tmp_path / "here", "cpu", "bfloat16", arriving=coming)
    assert not coming.waited
    assert same(loaded.model, whole, torch.bfloat16)


def test_what_does_not_come_can_be_tried_again(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole", dtype="bfloat16")
    coming = Coming(whole, tmp_path / "here", breaks_off=True)
    with pytest.raises(NotArrived, match="the network is gone"):
        load(tmp_path / "here", "cpu", "bfloat16", arriving=coming)
