"""A day with OpenAI's SDK, unmodified. pip install openai

LORAPLEX_URL, LORAPLEX_API_KEY: as `loraplex up` prints them. MODEL: a base model. ADAPTER: for it.
"""

import json
import os
import time

import httpx
from openai import OpenAI, RateLimitError

URL = os.environ.get("LORAPLEX_URL", "http://127.0.0.1:8000")
KEY = os.environ["LORAPLEX_API_KEY"]
MODEL = os.environ.get("MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
ADAPTER, NAME = os.environ.get("ADAPTER", "pirate/1"), os.environ.get("NAME", "openai-day")
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "maximum": 150}},
    "required": ["age"],
    "additionalProperties": False,
}

mine = {"authorization": f"Bearer {KEY}"}
control = httpx.Client(base_url=f"{URL}/api/v1", headers=mine, timeout=30)
control.post("/deployments", json={"name": NAME, "base_model": MODEL}).raise_for_status()
client = OpenAI(base_url=f"{URL}/v1", api_key=KEY)
print([model.id for model in client.models.list()])

ask = [{"role": "user", "content": "Where do you live?"}]
for model in (NAME, f"{NAME}:{ADAPTER}"):
    stream = client.chat.completions.create(
        model=model,
        messages=ask,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage:
            print(f"  ({model}: {chunk.usage.total_tokens} tokens)")

person = client.chat.completions.create(
    model=NAME,
    messages=[{"role": "user", "content": "How old is Alice?"}],
    response_format={"type": "json_schema", "json_schema": {"name": "age", "schema": SCHEMA}},
)
print(json.loads(person.choices[0].message.content or ""))

# Who can't hold a connection comes for the answer later.
sent = client.with_options(default_headers={"prefer": "respond-async"}).post(
    "/chat/completions",
    body={"model": NAME, "messages": ask, "max_tokens": 24},
    cast_to=httpx.Response,
)
answer = sent.json()["answer"].removeprefix("/api/v1")
while (found := control.get(answer, headers={"prefer": "wait=5"})).status_code == 202:
    time.sleep(float(found.headers["retry-after"]))
print("later:", found.json()["choices"][0]["message"]["content"])

# One answer at a time: who asks for more is told when to come again, and the SDK does.
control.patch(f"/deployments/{NAME}", json={"limits": {"concurrent": 1}}).raise_for_status()
time.sleep(2)  # until every API process knows
stream = client.chat.completions.create(
    model=NAME, messages=ask, stream=True, max_tokens=200, extra_body={"ignore_eos": True}
)
next(iter(stream))
try:
    client.with_options(max_retries=0).chat.completions.create(model=NAME, messages=ask)
except RateLimitError as limited:
    print("limited:", limited.message, "retry-after", limited.response.headers["retry-after"])
for _ in stream:
    pass
client.with_options(max_retries=5).chat.completions.create(model=NAME, messages=ask, max_tokens=1)

used: list = []
while sum(line["requests"] for line in used) < 6:  # each answer, a second or two after its end
    time.sleep(0.5)
    by_adapter = control.get("/usage", params={"by": ["deployment", "adapter"]}).json()["data"]
    used = [line for line in by_adapter if line["deployment"] == NAME]
for line in used:
    print(
        f"used: {line['adapter'] or 'base'}: {line['requests']}, {line['completion_tokens']} tokens"
    )

control.delete(f"/deployments/{NAME}").raise_for_status()
print("left:", [model.id for model in client.models.list()])
