"""What the API says of an adapter is so, on replicas that come, go, crash and fail to load it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ADAPTERS
from tests.e2e.running import COOLDOWN_S, Platform, until

pytestmark = pytest.mark.e2e


@pytest.fixture
def scout(platform: Platform, tmp_path: Path) -> Iterator[str]:
    """An adapter that no other test uses, as content of its own."""
    config = (ADAPTERS / "pirate" / "adapter_config.json").read_bytes()
    folder = tmp_path / "scout"
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes(config + b" " * (1 + hash(tmp_path) % 4096))
    weights = (ADAPTERS / "pirate" / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights)
    added = platform.loraplex("adapters", "add", "scout", str(folder))
    assert added.returncode == 0, added.stderr
    platform.http().patch("/api/v1/deployments/chat", json={"cooldown_time": 60})
    yield added.stdout.strip()
    platform.http().patch("/api/v1/deployments/chat", json={"cooldown_time": COOLDOWN_S})
    platform.http().delete("/api/v1/repos/scout")


def state(platform: Platform, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = platform.http().get(f"/api/v1/adapters/{ref}").json()
    return found


def in_a_slot(found: dict[str, Any]) -> bool:
    """It is put beside the slots first."""
    return [place["tier"] for place in found["places"]] == ["slot"]


def ask(platform: Platform, model: str) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    return platform.http().post("/v1/chat/completions", json=body)


def test_from_registered_to_resident_through_a_crash_to_deleted(
    platform: Platform, scout: str
) -> None:
    fresh = state(platform, scout)
    assert (fresh["state"], fresh["places"]) == ("registered", [])
    assert ask(platform, f"chat:{scout}").status_code == 200
    found = until(lambda: state(platform, scout), in_a_slot)
    assert found["state"] == "resident"
    (place,) = found["places"]
    assert place["deployment"] == "chat"
    listed = platform.http().get("/api/v1/adapters").json()["data"]
    assert next(each for each in listed if each["ref"] == scout)["state"] == "resident"
    platform.replica_process(place["replica"]).kill()
    until(
        lambda: state(platform, scout)["places"],
        lambda places: place["replica"] not in [each["replica"] for each in places],
    )
    assert ask(platform, f"chat:{scout}").status_code == 200
    again = until(lambda: state(platform, scout), lambda s: s["state"] == "resident")
    assert again["places"][0]["replica"] != place["replica"]
    assert "digest" in platform.loraplex("adapters", "show", scout).stdout
    assert platform.loraplex("adapters", "rm", scout).returncode == 0
    assert platform.http().get(f"/api/v1/adapters/{scout}").status_code == 404
    assert ask(platform, f"chat:{scout}").status_code == 404


@pytest.mark.processes
def test_one_that_cannot_be_loaded_has_failed_with_its_reason_until_it_can(
    platform: Platform, scout: str
) -> None:
    digest = state(platform, scout)["digest"]
    file = platform.home / "adapters" / digest / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    refused = ask(platform, f"chat:{scout}")
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "adapter_refused"
    failed = until(lambda: state(platform, scout), lambda s: s["state"] == "failed")
    assert "can't be read" in failed["places"][0]["reason"]
    file.write_bytes(whole)
    assert ask(platform, f"chat:{scout}").status_code == 200
    assert until(lambda: state(platform, scout), in_a_slot)["state"] == "resident"


def test_each_new_replica_loads_what_is_to_be_preloaded(platform: Platform, scout: str) -> None:
    platform.deploy("spread", min_replicas=1, max_replicas=2, engine={"preload": [scout]})

    def places() -> list[str]:
        found = state(platform, scout)["places"]
        return [
            each["replica"]
            for each in found
            if each["deployment"] == "spread" and each["tier"] in ("slot", "memory")
        ]

    until(places, lambda found: len(found) == 1)
    assert platform.http().patch("/api/v1/deployments/spread", json={"min_replicas": 2}).is_success
    until(places, lambda found: len(found) == 2)
    assert platform.http().delete("/api/v1/deployments/spread").is_success
    until(places, lambda found: not found)
