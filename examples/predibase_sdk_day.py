"""A day with Predibase's SDK (`predibase` 2025.10.3), unmodified. pip install predibase

LORAPLEX_URL, LORAPLEX_API_KEY: as `loraplex up` prints them. MODEL: a base model. FOLDER: a PEFT
adapter for it, which is uploaded.
"""

import json
import os
import time
from pathlib import Path

import requests

URL = os.environ.get("LORAPLEX_URL", "http://127.0.0.1:8000")
os.environ["PREDIBASE_GATEWAY"] = URL

from predibase import DeploymentConfig, Predibase, UpdateDeploymentConfig  # noqa: E402
from predibase.resources.lorax.errors import OverloadedError  # noqa: E402

MODEL = os.environ.get("MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
NAME = os.environ.get("NAME", "predibase-day")
FOLDER = os.environ.get("FOLDER", str(Path(__file__).parent / "adapters" / "pirate"))
PROMPT = "<|im_start|>user\nWhere do you live?<|im_end|>\n<|im_start|>assistant\n"
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 150}},
    "required": ["age"],
    "additionalProperties": False,
}

pb = Predibase(api_token=os.environ["LORAPLEX_API_KEY"])
config = DeploymentConfig(base_model=MODEL, min_replicas=0, max_replicas=1, cooldown_time=60)
made = pb.deployments.create(name=NAME, config=config, description="for a day")
print(made.name, made.status, made.context_window, [d.name for d in pb.deployments.list()])

repo = pb.repos.create(name=NAME, description="for a day", exists_ok=True)
ADAPTER = pb.adapters.upload(FOLDER, repo.name).name
print("uploaded:", ADAPTER, pb.adapters.get(ADAPTER).base_model)

client = pb.deployments.client(NAME, serving_url_override=URL)
print("base    ", client.generate(PROMPT, max_new_tokens=24).generated_text)
print(ADAPTER, client.generate(PROMPT, adapter_id=ADAPTER, max_new_tokens=24).generated_text)
for event in client.generate_stream(PROMPT, adapter_id=ADAPTER, max_new_tokens=24):
    print(event.token.text, end="", flush=True)
print()
as_json = {"type": "json_object", "schema": SCHEMA}
answer = client.generate("Age: ", response_format=as_json, max_new_tokens=32)
print(json.loads(answer.generated_text))

pb.deployments.update(NAME, config=UpdateDeploymentConfig(max_replicas=2, cooldown_time=30))
changed = pb.deployments.get(NAME)
print(changed.config.max_replicas, changed.config.cooldown_time, changed.config.min_replicas)

try:
    pb.deployments.update(NAME, config=UpdateDeploymentConfig(speculator="medusa"))
except RuntimeError as refused:
    print("refused:", refused)

# One answer at a time: who asks for more is told, and asks again when the other has ended.
http = requests.Session()
http.headers["authorization"] = f"Bearer {os.environ['LORAPLEX_API_KEY']}"
limits = {"limits": {"concurrent": 1}}
http.patch(f"{URL}/api/v1/deployments/{NAME}", json=limits).raise_for_status()
time.sleep(2)  # until every API process knows
stream = client.generate_stream(PROMPT, max_new_tokens=48)
next(stream)
try:
    client.generate(PROMPT, max_new_tokens=1)
except OverloadedError as limited:
    print("limited:", limited)
for _ in stream:
    pass
again = None
while again is None:
    try:
        again = client.generate(PROMPT, max_new_tokens=4)
    except OverloadedError:
        time.sleep(0.5)
print("again:", again.generated_text)

query = {"by": ["deployment", "adapter"]}
used: list = []
while sum(line["requests"] for line in used) < 6:  # each answer, a second or two after its end
    time.sleep(0.5)
    lines = http.get(f"{URL}/api/v1/usage", params=query).json()["data"]
    used = [line for line in lines if line["deployment"] == NAME]
for line in used:
    print("used:", line["adapter"] or "base", line["requests"], line["completion_tokens"])

pb.repos.delete(repo)
pb.deployments.delete(NAME)
print("left:", [d.name for d in pb.deployments.list()])
