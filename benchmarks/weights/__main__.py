"""From nothing on the disk to a model that is loaded: our way over `aws s3 cp`, then load.

The peer is what the AWS command line does (boto3's `download_file`: ten ranges of 8 MiB at once)
and after it the engine's load. Ours is what a replica does: ranges at once, each checked by its
digest, the model put together meanwhile. Both end when every page of the weights was touched; both
write into a fresh folder in memory, from the same server; both have imported all they need.

`loopback`: as fast as the machine can. `paced`: 85 MB/s a connection and 30 ms until its first
byte, which is what AWS says of S3 ("Performance design patterns for Amazon S3"). The model has
random weights; what arrived is compared with them after each round. An adapter alike, without the
load: ours is checked and on the disk when it ends, the peer's isn't.
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import report
from gpu_worker.engine.weights import LoadedModel, load
from loraplex.store.adapter_cache import AdapterCache
from loraplex.store.adapters import digest_of
from loraplex.store.model_bucket import ModelBucket
from loraplex.store.model_copies import ModelCopies
from loraplex.store.models import folder_name
from loraplex.store.peft_checks import CONFIG, WEIGHTS
from loraplex.store.remote_adapters import RemoteAdapters

NAME = "benchmark/llama"
ROUNDS = 5
SERVERS = {"loopback": (0.0, 0.0), "paced": (85.0, 0.03)}  # MB/s a connection, s to its first byte
LAYERS, QUICK_LAYERS = 14, 4  # 1.6 and 0.6 GB
LLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}
MEMORY = "/dev/shm"
ADAPTER_BYTES = 160 * 2**20


def measure(quick: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
        there = Path(scratch) / "there"
        model = store_model(there / "bucket", QUICK_LAYERS if quick else LAYERS)
        digest = store_adapter(there / "bucket")
        for name, (mb_s, first_byte_s) in SERVERS.items():
            with serving(there, mb_s, first_byte_s):
                suffix = "" if name == "loopback" else f"_{name}"
                rounds = Rounds(Path(scratch) / "here", model, digest)
                result |= {key + suffix: value for key, value in rounds.measure(name).items()}
    return result


class Rounds:
    """Each way into a fresh folder, in turn."""

    def __init__(self, here: Path, model: Path, digest: str) -> None:
        self._here, self._model, self._digest = here, model, digest
        self._adapter = model.parents[2] / "adapters" / digest
        self._settle: Callable[[], None] = lambda: None
        self._size = sum(file.stat().st_size for file in model.iterdir())

    def measure(self, server: str) -> dict[str, float]:
        ways: dict[str, Callable[[], float]] = {
            "download": lambda: self._timed(lambda: download(self._model, self._here)),
            "download, then load": lambda: self._timed(self._download_then_load),
            "ours": lambda: self._timed(self._ours),
            "download of an adapter": lambda: self._timed(
                lambda: download(self._adapter, self._here)
            ),
            "an adapter, ours": lambda: self._timed(self._our_adapter),
        }
        for way in ways.values():
            way()  # imports what it needs
        medians, values = report.median_rounds(ways, ROUNDS)
        rows = [
            [way, medians[way], min(all_), max(all_), size / medians[way] / 1e9]
            for (way, all_), size in zip(
                values.items(), [self._size] * 3 + [ADAPTER_BYTES] * 2, strict=True
            )
        ]
        report.table(
            f"{server}: a model of {self._size / 1e9:.2f} GB, an adapter of 160 MiB",
            ["", "s", "least", "most", "GB/s"],
            rows,
        )
        return {
            "ratio_to_download_then_load": ratio(values, "ours", "download, then load"),
            "ratio_to_download": ratio(values, "ours", "download"),
            "adapter_ratio": ratio(values, "an adapter, ours", "download of an adapter"),
        }

    def _timed(self, way: Callable[[], Path]) -> float:
        started = time.perf_counter()
        folder = way()
        took = time.perf_counter() - started
        self._settle()
        right = self._adapter if (folder / CONFIG).exists() else self._model
        for file in right.iterdir():
            if file.suffix == ".safetensors":
                subprocess.run(["cmp", str(file), str(folder / file.name)], check=True)
        shutil.rmtree(self._here)
        return took

    def _download_then_load(self) -> Path:
        folder = download(self._model, self._here)
        touch(load(folder, "cpu", "bfloat16"))
        return folder

    def _ours(self) -> Path:
        copies = ModelCopies(self._here, ModelBucket("s3://bucket/models"), None)
        folder, arriving = copies.begin(NAME)
        touch(load(folder, "cpu", "bfloat16", arriving=arriving))
        assert arriving is not None
        self._settle = arriving.settled
        return folder

    def _our_adapter(self) -> Path:
        cache = AdapterCache(RemoteAdapters("s3://bucket/adapters"), self._here, 2**40)
        return cache.folder(self._digest)


def download(there: Path, here: Path) -> Path:
    """As `aws s3 cp --recursive` does."""
    folder, client = here / there.name, boto3.client("s3")
    folder.mkdir(parents=True)
    for file in there.iterdir():
        client.download_file("bucket", key_of(file), folder / file.name)
    return folder


def key_of(file: Path) -> str:
    """Of an object in the bucket."""
    parts = file.parts
    return "/".join(parts[parts.index("bucket") + 1 :])


def touch(loaded: LoadedModel) -> None:
    """A byte of every page: what is mapped is there, too."""
    for tensor in loaded.model.parameters():
        tensor.detach().view(-1)[::2048].sum()


def ratio(values: dict[str, list[float]], ours: str, peer: str) -> float:
    """Median over the rounds."""
    pairs = zip(values[ours], values[peer], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def store_model(bucket: Path, layers: int) -> Path:
    """Into the bucket's folder, as a task worker would."""
    folder = bucket.parent / "model"
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, **LLAMA)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.view(torch.int16).random_()
    model.save_pretrained(folder, max_shard_size="500MB")
    (folder / "tokenizer.json").write_text("{}")
    note = bucket.parent / "published"
    ModelBucket(f"file://{bucket}/models").publish(NAME, folder, lambda *_: None, note)
    shutil.rmtree(folder)
    found = (bucket / "models" / folder_name(NAME)).iterdir()
    return next(each for each in found if each.is_dir())


def store_adapter(bucket: Path) -> str:
    """Its digest."""
    scratch = bucket / "adapters" / "new"
    scratch.mkdir(parents=True)
    (scratch / CONFIG).write_text("{}")
    (scratch / WEIGHTS).write_bytes(os.urandom(ADAPTER_BYTES))
    digest = digest_of(scratch / CONFIG, scratch / WEIGHTS)
    scratch.rename(scratch.with_name(digest))
    return digest


@contextlib.contextmanager
def serving(folder: Path, mb_s: float, first_byte_s: float) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.weights.server"]
    command += [str(folder), str(mb_s), str(first_byte_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.stdout.readline().strip()}",
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        try:
            yield
        finally:
            server.kill()


if __name__ == "__main__":
    report.main("weights", measure, ["torch", "transformers", "obstore", "boto3"])
