"""What `test_predibase_sdk.py` does with the real SDK: repos, adapters, datasets. Prints facts."""

import json
import os
import tempfile
import zipfile
from pathlib import Path

URL = os.environ["LORAPLEX_URL"]
os.environ["PREDIBASE_GATEWAY"] = URL

import pandas  # noqa: E402
from predibase import Predibase  # noqa: E402

pb = Predibase(api_token=os.environ["LORAPLEX_API_KEY"])
folder = Path(os.environ["ADAPTER_FOLDER"])
facts: dict = {}


def refusal(call, *arguments, **named) -> str:
    try:
        call(*arguments, **named)
    except (RuntimeError, ValueError) as refused:
        return str(refused)
    raise AssertionError("it was not refused")


repo = pb.repos.create(name="pb-repo", description="of a test")
facts["created"] = [repo.name, repo.description, len(repo.versions)]
facts["taken"] = refusal(pb.repos.create, name="pb-repo")
facts["exists_ok"] = pb.repos.create(name="pb-repo", exists_ok=True).uuid == repo.uuid
facts["bad name"] = refusal(pb.repos.create, name="../x")

adapter = pb.adapters.upload(str(folder), "pb-repo")
facts["uploaded"] = [adapter.name, adapter.base_model, adapter.archived]
facts["same again"] = pb.adapters.upload(str(folder), "pb-repo").name
facts["got"] = pb.adapters.get("pb-repo/1").artifact_path == adapter.artifact_path
facts["listed"] = [r.name for r in pb.repos.list(limit=1)]
facts["nothing"] = refusal(pb.adapters.get, "pb-repo/7")

client = pb.deployments.client("chat", serving_url_override=URL)
PROMPT = "<|im_start|>user\nWhere do you live?<|im_end|>\n<|im_start|>assistant\n"
answers = [
    client.generate(PROMPT, adapter_id=ref, max_new_tokens=12).generated_text
    for ref in ("pb-repo/1", "pirate/1")
]
facts["serves"] = answers[0] == answers[1] != ""

with tempfile.TemporaryDirectory() as scratch:
    pb.adapters.download("pb-repo/1", dest=scratch)
    with zipfile.ZipFile(Path(scratch) / "1.zip") as files:
        same = [files.read(f) == (folder / f).read_bytes() for f in files.namelist()]
        facts["downloaded"] = dict(zip(files.namelist(), same, strict=True))
    pickled = Path(scratch) / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((folder / "adapter_config.json").read_bytes())
    (pickled / "adapter_model.bin").write_bytes(b"\x80\x04x")
    facts["pickle"] = refusal(pb.adapters.upload, str(pickled), "pb-repo")

    good = pandas.DataFrame({"prompt": ["a", "b,\n2"], "completion": ["x", "y"]})
    data = pb.datasets.from_pandas_dataframe(good, name="pb-data")
    facts["dataset"] = [data.name, data.status, data.connection_name]
    facts["dataset again"] = refusal(pb.datasets.from_pandas_dataframe, good, name="pb-data")
    facts["same dataset"] = pb.datasets.get("file_uploads/pb-data").uuid == data.uuid
    pb.datasets.download(data, dest=f"{scratch}/back")
    facts["data back"] = pandas.read_csv(f"{scratch}/back.csv").equals(good)
    lines = [{"prompt": "a", "completion": "b"}, {"prompt": "a"}]
    (Path(scratch) / "bad.jsonl").write_text("\n".join(map(json.dumps, lines)))
    facts["bad rows"] = refusal(pb.datasets.from_file, f"{scratch}/bad.jsonl")

pb.adapters.archive("pb-repo/1")
facts["archived"] = [len(pb.repos.get("pb-repo").versions), pb.adapters.get("pb-repo/1").archived]
pb.adapters.unarchive("pb-repo/1")
facts["unarchived"] = len(pb.repos.get(repo).versions)
pb.adapters.delete("pb-repo/1")
facts["deleted"] = refusal(pb.adapters.get, "pb-repo/1")
facts["next"] = pb.adapters.upload(str(folder), "pb-repo").name
pb.repos.delete("pb-repo")
facts["no repo"] = refusal(pb.repos.get, "pb-repo")
facts["absent"] = [
    refusal(pb.http_get, path) for path in ("/v2/gateways", "/v2/secrets", "/v2/batch-inference")
]
print(json.dumps(facts))
