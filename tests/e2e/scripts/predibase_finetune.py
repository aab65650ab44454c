"""What `test_predibase_sdk.py` trains with the real SDK. Prints facts, last."""

import json
import os

URL = os.environ["LORAPLEX_URL"]
os.environ["PREDIBASE_GATEWAY"] = URL

import pandas  # noqa: E402
from predibase import Predibase, SFTConfig  # noqa: E402

pb = Predibase(api_token=os.environ["LORAPLEX_API_KEY"])
facts: dict = {}
rows = pandas.DataFrame({"prompt": [f"{n}+1=" for n in range(8)], "completion": ["x"] * 8})
data = pb.datasets.from_pandas_dataframe(rows, name="ft-data")
repo = pb.repos.create(name="ft-repo")
config = SFTConfig(
    base_model=os.environ["MODEL"],
    train_steps=3,
    rank=2,
    target_modules=["q_proj"],
    learning_rate=0.001,
    apply_chat_template=True,
)

adapter = pb.adapters.create(config=config, dataset=data, repo=repo, description="of a test")
facts["made"] = [adapter.name, adapter.base_model, bool(adapter.artifact_path)]

job = pb.finetuning.jobs.create(
    config=config.model_copy(update={"train_steps": 100_000}), dataset="ft-data", repo="ft-repo"
)
facts["next"] = [job.target_version_tag, job.dataset, job.status in ("queued", "training")]
pb.finetuning.jobs.cancel(job.uuid)
watched = pb.finetuning.jobs.watch(job.uuid)
facts["cancelled"] = watched.status
try:
    pb.adapters.get("ft-repo/2")
except Exception as none:
    facts["no version"] = type(none).__name__
other = pb.finetuning.jobs.create(
    config=config.model_copy(update={"target_modules": ["nothing"]}), dataset=data, repo=repo
)
watched = pb.finetuning.jobs.watch(other)
facts["failed"] = watched.status
try:
    pb.adapters.get("ft-repo/3")
except Exception as none:
    facts["why"] = str(none)
try:
    pb.finetuning.jobs.create(config={"base_model": "x", "task": "grpo"}, dataset=data, repo=repo)
except RuntimeError as refused:
    facts["refused"] = str(refused)
print(json.dumps(facts))
