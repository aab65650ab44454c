"""What the doctor says of model folders, and of a load's figures what bench says."""

import json
from pathlib import Path

import pytest

from loraplex.cli.bench import Stream, summary
from loraplex.doctor import unloadable


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that can be loaded, as far as its files tell."""
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"abcd"
    (tmp_path / "model.safetensors").write_bytes(content)
    return tmp_path


def test_a_whole_model_is_fine(model: Path) -> None:
    assert unloadable(model) == ""


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", b"{", "config.json can't be read"),
        ("config.json", b"{}", "names no architecture"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("model.safetensors", None, "no *.safetensors"),
        ("model.safetensors", b"\x04\0\0\0\0\0\0\0{[[[", "no safetensors header"),
        ("model.safetensors", b"", "no safetensors header"),
    ],
)
def test_a_broken_one_is_told(model: Path, file: str, content: bytes | None, said: str) -> None:
    if content is None:
        (model / file).unlink()
    else:
        (model / file).write_bytes(content)
    assert said in unloadable(model)


def test_a_download_that_was_cut_off_is_told(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "is cut off" in unloadable(model)


def test_bench_tells_percentiles_of_what_ended_well() -> None:
    streams = [Stream("base", 0.0, [0.1 * n, 0.1 * n + 0.05], 2) for n in range(1, 101)]
    streams.append(Stream("a/1", 0.0, error="gone"))
    found = summary(streams, 10.0)
    assert (found["requests"], found["failed"], found["errors"]) == (101, 1, ["gone"])
    assert found["tokens_per_s"] == 20.0
    assert found["ttft_s"]["p50"] == pytest.approx(5.1, abs=0.11)
    assert found["inter_token_s"]["p99"] == pytest.approx(0.05)
    assert list(found["ttft_s_by_variant"]) == ["base"]
