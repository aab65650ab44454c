"""A day with `lorax-client` (0.6.3), unmodified. pip install lorax-client

LORAPLEX_URL, LORAPLEX_API_KEY: as `loraplex up` prints them. DEPLOYMENT and ADAPTER: what to ask.
"""

import json
import os
import time

import requests
from lorax import Client
from lorax.errors import OverloadedError, ValidationError

URL = os.environ.get("LORAPLEX_URL", "http://127.0.0.1:8000")
DEPLOYMENT, ADAPTER = os.environ.get("DEPLOYMENT", "smollm2"), os.environ.get("ADAPTER", "pirate/1")
HEADERS = {"Authorization": f"Bearer {os.environ['LORAPLEX_API_KEY']}"}
PROMPT = "<|im_start|>user\nWhere do you live?<|im_end|>\n<|im_start|>assistant\n"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

client = Client(f"{URL}/deployments/{DEPLOYMENT}", headers=HEADERS, timeout=300)

base = client.generate(PROMPT, max_new_tokens=24)
print("base    ", base.generated_text, base.details)

tuned = client.generate(PROMPT, adapter_id=ADAPTER, max_new_tokens=24, details=True)
print(f"{ADAPTER:8}", tuned.generated_text)
print(tuned.details.finish_reason, tuned.details.generated_tokens, "tokens")

streamed = ""
for event in client.generate_stream(PROMPT, adapter_id=ADAPTER, max_new_tokens=24):
    if not event.token.special:
        streamed += event.token.text
        print(event.token.text, end="", flush=True)
print(f"\n{event.details.prompt_tokens} → {event.details.generated_tokens} tokens")
assert streamed == event.generated_text == tuned.generated_text

person = client.generate(
    "Alice, 30: ",
    response_format={"type": "json_object", "schema": SCHEMA},
    max_new_tokens=64,
)
print(json.loads(person.generated_text))

try:
    client.generate(PROMPT, adapter_id=ADAPTER, adapter_source="hub", max_new_tokens=1)
except ValidationError as refused:
    print("refused:", refused)

# One answer at a time: who asks for more is told, and asks again when the other has ended.
http = requests.Session()
http.headers.update(HEADERS)
control = f"{URL}/api/v1/deployments/{DEPLOYMENT}"
http.patch(control, json={"limits": {"concurrent": 1}}).raise_for_status()
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
http.patch(control, json={"limits": {}}).raise_for_status()

query = {"by": ["deployment", "adapter"]}
used: list = []
while sum(line["requests"] for line in used) < 6:  # each answer, a second or two after its end
    time.sleep(0.5)
    lines = http.get(f"{URL}/api/v1/usage", params=query).json()["data"]
    used = [line for line in lines if line["deployment"] == DEPLOYMENT]
for line in used:
    print("used:", line["adapter"] or "base", line["requests"], line["completion_tokens"])
