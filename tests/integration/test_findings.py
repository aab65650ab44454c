"""A model that was probed is not probed again, unless something has changed."""

import shutil
from pathlib import Path

import pytest

from gpu_worker.engine import allocation
from gpu_worker.engine import engine as engine_module
from gpu_worker.engine.engine import Engine
from gpu_worker.engine.request import ModelRefused, Request, Sampling
from tests.integration.test_admission_probe import LLAMA, REFUSED, save


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry a probe of a packed forward."""
    seen: list[str] = []
    probe = allocation.probe

    def counted(*arguments: object) -> None:
        seen.append("probe")
        probe(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(allocation, "probe", counted)
    return seen


def run(model: Path, findings: Path | None, **config: object) -> list[int]:
    config = {"dtype": "float32"} | config
    with Engine.from_pretrained(
        model, device="cpu", kv_cache_gib=0.01, findings=findings, **config
    ) as engine:
        request = Request("r", list(range(3, 40)), Sampling(30, ignore_eos=True))
        return engine.generate([request])["r"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_second_start_answers_the_same_without_a_probe(
    dtype: str, tmp_path: Path, probes: list[str]
) -> None:
    model = save("llama", LLAMA, tmp_path / "model")
    first = run(model, tmp_path / "findings", dtype=dtype)
    assert probes
    probes.clear()
    second = run(model, tmp_path / "findings", dtype=dtype)
    assert not probes
    if dtype == "float32":  # bfloat16 rounds otherwise before its layers are packed
        assert second == first


def test_whatever_changes_is_probed_again(
    tmp_path: Path, probes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, findings = save("llama", LLAMA, tmp_path / "model"), tmp_path / "findings"
    run(model, findings)
    weights = model / "model.safetensors"

    def other_weights() -> None:
        shutil.copy(weights, tmp_path / "copy")  # the same bytes: who knows what they were between
        (tmp_path / "copy").replace(weights)

    def other_config() -> None:
        text = (model / "config.json").read_text()
        (model / "config.json").write_text(text.replace('"vocab_size"', ' "vocab_size"'))

    def other_code() -> None:
        monkeypatch.setattr("gpu_worker.engine.findings._code", lambda: "new")

    for change in (other_weights, other_config, other_code):
        change()
        probes.clear()
        run(model, findings)
        assert probes, change.__name__
        probes.clear()
        run(model, findings)
        assert not probes
    run(model, findings, dtype="bfloat16")
    assert probes


def test_broken_findings_and_folders_that_cannot_be_written_only_cost_time(
    tmp_path: Path, probes: list[str]
) -> None:
    model, findings = save("llama", LLAMA, tmp_path / "model"), tmp_path / "findings"
    run(model, findings)
    (file,) = findings.iterdir()
    file.write_text("{")
    probes.clear()
    run(model, findings)
    assert probes
    (tmp_path / "file").write_text("")
    run(model, tmp_path / "file" / "below")


def test_a_refused_model_is_not_remembered(tmp_path: Path) -> None:
    settings, reason = REFUSED["falcon"]
    model = save("falcon", settings, tmp_path / "model")
    for _ in range(2):
        with pytest.raises(ModelRefused, match=reason):
            run(model, tmp_path / "findings")


def test_without_a_folder_every_start_probes(
    tmp_path: Path, probes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save("llama", LLAMA, tmp_path / "model")
    eager: list[str] = []
    original = engine_module.eager_logits
    monkeypatch.setattr(
        engine_module, "eager_logits", lambda *a: (eager.append("eager"), original(*a))[1]
    )
    for count in (1, 2):
        run(model, None)
        assert len(eager) == count and probes
