"""Base models under a quota: those that nobody needs go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loraplex.store.model_room import ModelRoom, stored
from loraplex.store.models import ModelUnavailable
from tests.fakes.hub import hub

MIB = 2**20
FETCH = """
import sys
from pathlib import Path
from loraplex.store.model_room import ModelRoom
from loraplex.store.models import ModelStore
root, quota, needed, *names = sys.argv[1:]
room = ModelRoom(Path(root), int(quota), lambda: set(needed.split()))
store = ModelStore(Path(root), allow_local=False, make_room=room.make)
for name in names:
    print(store.fetch(name))
"""


def model(root: Path, name: str, size: int, used_at: float) -> None:
    folder = root / name.replace("/", "--")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(size))
    os.utime(folder, (used_at, used_at))


def test_the_least_lately_used_of_those_that_nobody_needs_go(tmp_path: Path) -> None:
    for number, name in enumerate(("org/needed", "org/old", "org/new")):
        model(tmp_path, name, MIB, number + 1.0)
    room = ModelRoom(tmp_path, 4 * MIB + 100, lambda: {"org/needed"})

    def here() -> set[str]:
        return {each.name for each in stored(tmp_path)}

    room.make("org/more", MIB // 2)
    assert here() == {"org/needed", "org/old", "org/new"}
    room.make("org/more", 2 * MIB)
    assert here() == {"org/needed", "org/new"}
    with pytest.raises(ModelUnavailable, match=r"LORAPLEX_MODELS_GIB.*In use: org/needed"):
        room.make("org/more", 4 * MIB)
    assert here() == {"org/needed", "org/new"}, "nothing goes for what can't come"
    ModelRoom(tmp_path, None, lambda: set()).make("org/more", 10**15)


def test_what_the_hubs_cache_holds_goes_with_them(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"{}"}
    with hub() as facts:
        for name in ("org/one", "org/two", "org/large"):
            size = 3 * MIB if name == "org/large" else MIB
            facts.repos[name] = files | {"model.safetensors": name.encode() + bytes(size)}
        environment = os.environ | {"HF_ENDPOINT": facts.url, "HF_HOME": str(tmp_path / "hf")}

        def fetch(*names: str, needed: str = "") -> "subprocess.CompletedProcess[str]":
            command = [sys.executable, "-c", FETCH, str(tmp_path / "models"), str(2 * MIB), needed]
            return subprocess.run(
                [*command, *names], env=environment, capture_output=True, text=True, check=False
            )

        first = fetch("org/one", "org/two")
        assert first.returncode == 0, first.stderr
        assert [each.name for each in stored(tmp_path / "models")] == ["org/two"]
        cached = [f for f in (tmp_path / "hf").rglob("*") if f.is_file() and not f.is_symlink()]
        blobs = [file for file in cached if file.stat().st_size > MIB]
        assert len(blobs) == 1, "the other one's weights are gone from the cache, too"
        refused = fetch("org/one", needed="org/two")
        assert "In use: org/two" in refused.stderr
        assert "LORAPLEX_MODELS_GIB" in fetch("org/large").stderr
        again = fetch("org/one")
        assert again.returncode == 0, again.stderr
        folder = Path(again.stdout.strip())
        assert json.loads((folder / "config.json").read_text()) == {}
