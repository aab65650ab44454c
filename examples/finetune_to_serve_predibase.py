"""From rows to a promoted adapter with Predibase's SDK (`predibase` 2025.10.3), unmodified.
pip install predibase

LORAPLEX_URL, LORAPLEX_API_KEY: as `loraplex up` prints them. DEPLOYMENT and MODEL: its base model.
REPO: the adapter's. EPOCHS: fewer take less time and bring less.
"""

import os

import pandas
import requests

URL = os.environ.get("LORAPLEX_URL", "http://127.0.0.1:8000")
os.environ["PREDIBASE_GATEWAY"] = URL

from predibase import Predibase, SFTConfig  # noqa: E402

MODEL = os.environ.get("MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
DEPLOYMENT = os.environ.get("DEPLOYMENT", "smollm2")
REPO = os.environ.get("REPO", "tickets-pb")
EPOCHS = int(os.environ.get("EPOCHS", "6"))
DESKS = {"printer": "HW-7", "password": "ID-3", "invoice": "FI-1", "laptop": "HW-2"}
SAYINGS = ("My {} is gone.", "The {} is broken again!", "Who looks after the {}?", "{}: help")
PROMPT = "<|im_start|>user\nI need another laptop.<|im_end|>\n<|im_start|>assistant\n"

pb = Predibase(api_token=os.environ["LORAPLEX_API_KEY"])
rows = [(saying.format(thing), desk) for thing, desk in DESKS.items() for saying in SAYINGS]
frame = pandas.DataFrame(rows, columns=["prompt", "completion"])
dataset = pb.datasets.from_pandas_dataframe(frame, name=REPO)
repo = pb.repos.create(name=REPO, exists_ok=True)

# Shows each loss as it comes, and returns when the adapter can be asked.
adapter = pb.adapters.create(
    config=SFTConfig(
        base_model=MODEL,
        epochs=EPOCHS,
        rank=8,
        learning_rate=0.002,
        effective_batch_size=4,
        apply_chat_template=True,
    ),
    dataset=dataset,
    repo=repo,
    description="tickets to desks",
)
print("made:", adapter.name)

client = pb.deployments.client(DEPLOYMENT, serving_url_override=URL)
for named in ({}, {"adapter_id": adapter.name}):
    answer = client.generate(PROMPT, max_new_tokens=16, **named)
    print(named.get("adapter_id", "base"), "says:", answer.generated_text)

# Predibase has no aliases; here one moves at once.
http = requests.Session()
http.headers["authorization"] = f"Bearer {os.environ['LORAPLEX_API_KEY']}"
versions = {"versions": {str(adapter.tag): 1}}
http.put(f"{URL}/api/v1/repos/{REPO}/aliases/prod", json=versions).raise_for_status()
served = client.generate(PROMPT, max_new_tokens=16, adapter_id=f"{REPO}@prod")
print(f"{REPO}@prod says:", served.generated_text)
