"""From rows to a promoted adapter with OpenAI's SDK, unmodified. pip install openai

LORAPLEX_URL, LORAPLEX_API_KEY: as `loraplex up` prints them. DEPLOYMENT: of the base model. REPO:
the adapter's. EPOCHS: fewer take less time and bring less.
"""

import io
import json
import os

import httpx
from openai import OpenAI, Stream
from openai.types.fine_tuning import FineTuningJobEvent

URL = os.environ.get("LORAPLEX_URL", "http://127.0.0.1:8000")
DEPLOYMENT = os.environ.get("DEPLOYMENT", "smollm2")
REPO = os.environ.get("REPO", "tickets")
EPOCHS = int(os.environ.get("EPOCHS", "6"))
DESKS = {"printer": "HW-7", "password": "ID-3", "invoice": "FI-1", "laptop": "HW-2"}
SAYINGS = ("My {} is gone.", "The {} is broken again!", "Who looks after the {}?", "{}: help")


def row(said: str, desk: str) -> dict:
    answer = {"role": "assistant", "content": desk}
    return {"messages": [{"role": "user", "content": said}, answer]}


client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ["LORAPLEX_API_KEY"], max_retries=5)
rows = [row(saying.format(thing), desk) for thing, desk in DESKS.items() for saying in SAYINGS]
content = "".join(json.dumps(each) + "\n" for each in rows).encode()
file = client.files.create(file=("tickets.jsonl", io.BytesIO(content)), purpose="fine-tune")

job = client.fine_tuning.jobs.create(
    model=DEPLOYMENT,
    training_file=file.id,
    suffix=REPO,
    seed=1,
    hyperparameters={"n_epochs": EPOCHS, "batch_size": 4, "learning_rate_multiplier": 10},
    extra_body={"lora": {"rank": 8}},
)
told = client.get(
    f"/fine_tuning/jobs/{job.id}/events",
    cast_to=FineTuningJobEvent,
    options={"params": {"stream": True}},
    stream=True,
    stream_cls=Stream[FineTuningJobEvent],
)
for event in told:  # as it comes, until the job has ended
    print(event.message)
done = client.fine_tuning.jobs.retrieve(job.id)
print(done.status, done.fine_tuned_model, done.trained_tokens, "tokens")
assert done.fine_tuned_model is not None, done.error
for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
    losses = checkpoint.metrics.train_loss
    print("kept:", checkpoint.fine_tuned_model_checkpoint, checkpoint.step_number, losses)

# Side by side, of a ticket that it has not seen; then `tickets@prod` is the new one, at once.
ask = [{"role": "user", "content": "I need another laptop."}]
for model in (DEPLOYMENT, f"{DEPLOYMENT}:{done.fine_tuned_model}"):
    answer = client.chat.completions.create(model=model, messages=ask, max_tokens=16, temperature=0)
    print(f"{model}: {answer.choices[0].message.content}")
alias = client.put(
    f"{URL}/api/v1/repos/{REPO}/aliases/prod",
    body={"versions": {done.fine_tuned_model.partition("/")[2]: 1}},
    cast_to=httpx.Response,
)
print(alias.json()["ref"], "is", alias.json()["versions"])
served = client.chat.completions.create(model=f"{REPO}@prod", messages=ask, max_tokens=16)
print(f"{REPO}@prod:", served.choices[0].message.content)
