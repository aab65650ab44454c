"""What `up` shows: one deployment, two adapters, three answers out of one micro-batch."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loraplex.cli.chat import stream_chat
from loraplex.cli.client import Client, fail, out
from loraplex.store.models import DEMO_MODEL

DEPLOYMENT = "smollm2"
ADAPTERS = {"pirate": "pirate/1", "json": "json/1"}
QUESTION = "What is the capital of France?"
_FOLDER = Path(__file__).parents[2] / "examples" / "adapters"
_COOLDOWN_S = 120


def run(client: Client, stop: threading.Event) -> None:
    """Deploy, register, ask. Safe to run again on the same home."""
    for repo in ADAPTERS:
        register_adapter(client, repo, _FOLDER / repo)
    names = [d["name"] for d in client.call("GET", "/api/v1/deployments")["data"]]
    if DEPLOYMENT not in names:
        body = {"name": DEPLOYMENT, "base_model": DEMO_MODEL, "cooldown_time": _COOLDOWN_S}
        client.call("POST", "/api/v1/deployments", json=body)
    _wait_until_admitting(client, stop)
    out.print(f"\n{QUESTION}  (asked of the base model and both adapters at once)")
    started = time.monotonic()
    models = [DEPLOYMENT, *ADAPTERS.values()]
    with ThreadPoolExecutor(len(models)) as pool:
        answers = list(pool.map(lambda model: "".join(_ask(client, model)), models))
    for model, answer in zip(models, answers, strict=True):
        out.print(f"  {model:9} {answer.strip()}")
    replicas = client.call("GET", f"/api/v1/deployments/{DEPLOYMENT}")["replicas"]
    for replica in replicas:
        out.print(
            f"  answered in {time.monotonic() - started:.1f} s, cold start included, by replica "
            f"{replica['id']}: {replica['mixed_steps']} of {replica['steps']} steps mixed, "
            f"up to {replica['most_adapters_in_step']} variants in one"
        )


def _ask(client: Client, model: str) -> list[str]:
    messages = [{"role": "user", "content": QUESTION}]
    return list(stream_chat(client, model, messages, max_tokens=60, temperature=0))


def register_adapter(client: Client, repo: str, folder: Path, base_model: str = "") -> str:
    """Upload a PEFT folder, or an archive of one; returns its ref (the same files give the same
    version)."""
    data = {"repo": repo, "base_model": base_model}
    if folder.is_file():
        with folder.open("rb") as archive:
            sent = {"archive": (folder.name, archive)}
            return str(client.call("POST", "/api/v1/adapters", data=data, files=sent)["ref"])
    if not folder.exists():
        raise fail(f"There is no {folder}.")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise fail(f"{folder} has no {name}.")
    files = {
        "adapter_config": (folder / "adapter_config.json").read_bytes(),
        "adapter_model": (folder / "adapter_model.safetensors").read_bytes(),
    }
    return str(client.call("POST", "/api/v1/adapters", data=data, files=files)["ref"])


def _wait_until_admitting(client: Client, stop: threading.Event) -> None:
    """Pending passes quickly: the model is in the store."""
    while not stop.is_set():
        deployment = client.call("GET", f"/api/v1/deployments/{DEPLOYMENT}")
        if deployment["status"] in ("standby", "ready", "initializing", "updating"):
            return
        if deployment["status"] != "pending":
            raise fail(f"deployment {DEPLOYMENT} is {deployment['status']}: {deployment['reason']}")
        stop.wait(0.2)
    raise fail("interrupted", 130)
