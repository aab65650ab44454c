"""What README and docs tell to type is typed, page by page, as a reader would."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.blocks import Block, blocks
from loraplex.embedded.ports import free_port
from loraplex.store.models import ModelStore
from tests.conftest import ADAPTERS
from tests.fakes.hub import Hub

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]
GENERATED = {"api.md", "cli.md", "metrics.md", "settings.md"}
# Blocks with such a title are not run here. The first is followed by `benchmarks.quickstart`.
ELSEWHERE = {
    "In Loraplex' folder",
    "With Docker",
    "On the machine",
    "On the machines",
    "On your machine",
    "With Kubernetes",
    "With internet",
    "Without internet",
}
PATIENCE_S = 240


def pages() -> list[Path]:
    docs = [p for p in sorted((REPOSITORY / "docs").glob("*.md")) if p.name not in GENERATED]
    return [page for page in (REPOSITORY / "README.md", *docs) if blocks(page.read_text())]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_snippet_escapes(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language not in ("sh", "python"):
            assert not re.search(r"^(loraplex|curl|make|pip) ", block.text, re.MULTILINE), block
        if block.title:
            assert block.language == "sh" and block.title in ELSEWHERE
            subprocess.run(["bash", "-n", "-c", block.text], check=True)


@dataclass(frozen=True)
class Reader:
    """Somebody with a home of his own, in which the platform is up with its demo."""

    home: Path
    environment: dict[str, str]

    def loraplex(self, *arguments: str, **also: str) -> int:
        done = subprocess.run(
            ["loraplex", *arguments],
            env=self.environment | also,
            cwd=self.home,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode

    def types(self, block: Block, folder: Path) -> None:
        text = block.text.replace(
            "127.0.0.1:8000", f"127.0.0.1:{self.environment['LORAPLEX_PORT']}"
        )
        text = text.replace("LORAPLEX_PORT=8001", f"LORAPLEX_PORT={free_port()}")
        shell = ["bash", "-euo", "pipefail", "-c"]
        command = [sys.executable, "-c"] if block.language == "python" else shell
        done = subprocess.run(
            [*command, text],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def reader(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: ModelStore,
    smollm2: Path,
    tiny_model: Path,
    hub: Hub,
    s3: dict[str, str],
) -> Iterator[Reader]:
    home = tmp_path_factory.mktemp("reader")
    shutil.copytree(model_store.root, home / ".loraplex" / "models")
    hub.repos["org/tiny"] = {file.name: file.read_bytes() for file in tiny_model.iterdir()}
    environment = {
        **os.environ,
        **s3,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "LORAPLEX_PORT": str(free_port()),
        "LORAPLEX_S3_SOURCES": '["s3://adapters/{tenant}"]',
        "HF_ENDPOINT": hub.url,
    }
    environment.pop("LORAPLEX_HOME", None)
    reader = Reader(home, environment)
    assert reader.loraplex("up", "--detach") == 0
    yield reader
    assert reader.loraplex("down") == 0


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_a_page_says_works(page: Path, reader: Reader, tmp_path: Path) -> None:
    _give(tmp_path)
    if not (reader.home / ".loraplex" / "platform.json").exists():  # another page has failed
        assert reader.loraplex("up", "--detach", "--no-demo") == 0
    try:
        for block in blocks(page.read_text()):
            if block.language in ("sh", "python") and not block.title:
                reader.types(block, tmp_path)
    finally:
        for left in tmp_path.rglob("platform.json"):
            reader.loraplex("down", LORAPLEX_HOME=str(left.parent))


def _give(folder: Path) -> None:
    """What a reader brings: an adapter, as a folder and packed, rows, a schema."""
    adapter = folder / "my-adapter"
    shutil.copytree(ADAPTERS / "pirate", adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 15}))
    shutil.make_archive(str(folder / "poet"), "zip", ADAPTERS / "json")
    shutil.copytree(ADAPTERS, folder / "adapters")
    asked = [("What is 1 + 1?", "2"), ("Name a color.", "Blue"), ("Say hello.", "Hello!")] * 4
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in asked
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "answer.schema.json").write_text('{"type": "object", "required": ["answer"]}')
