"""Webhooks and budgets of a real platform, received by a real server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import openai
import pytest

from tests.e2e.running import Platform, until
from tests.e2e.test_limits_and_usage import ASK, Tenant


class Receiver:
    """Keeps what comes; answers 500 as often as told, then 204."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.refuse = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
                refuse = receiver.refuse > 0
                receiver.refuse -= refuse
                self.send_response(500 if refuse else 204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.came]


@pytest.fixture(scope="module")
def spender(platform: Platform) -> Tenant:
    return Tenant(platform, "spender")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()


def hook(tenant: Tenant, url: str, *events: str) -> dict[str, Any]:
    answer = tenant.http.post("/api/v1/webhooks", json={"url": url, "events": events or ["*"]})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def deliveries(tenant: Tenant, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tenant.http.get(f"/api/v1/webhooks/{name}/deliveries").json()[
        "data"
    ]
    return rows


def test_what_happens_to_a_deployment_is_sent_and_signed(
    platform: Platform, spender: Tenant, receiver: Receiver
) -> None:
    made = hook(spender, receiver.url, "deployment.*")
    body = {"name": "mine", "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    assert spender.http.post("/api/v1/deployments", json=body).status_code == 201
    until(receiver.types, lambda types: "deployment.standby" in types)
    client = openai.OpenAI(api_key="x", webhook_secret=made["secret"])
    for headers, sent in receiver.came:
        client.webhooks.verify_signature(sent, headers)
    event = json.loads(receiver.came[0][1])["data"]
    assert (event["deployment"], event["from_status"]) == ("mine", "pending")
    assert "secret" not in json.dumps(spender.http.get("/api/v1/webhooks").json())
    assert spender.http.delete(f"/api/v1/webhooks/{made['id']}").status_code == 200


def test_what_fails_is_sent_again_and_the_log_says_so(
    platform: Platform, spender: Tenant, receiver: Receiver
) -> None:
    made = hook(spender, receiver.url)
    receiver.refuse = 1
    assert spender.http.post(f"/api/v1/webhooks/{made['id']}/ping").status_code == 202

    def row() -> dict[str, Any]:
        return deliveries(spender, made["id"])[0]

    tried = until(row, lambda found: found["attempts"] == 1 and found["error"] != "")
    assert (tried["state"], tried["status_code"]) == ("pending", 500)
    again = until(row, lambda found: found["state"] == "delivered")
    assert again["attempts"] == 2
    ids = {headers["webhook-id"] for headers, _ in receiver.came}
    assert ids == {again["id"]}, "a repeat is known by its id"
    retry = f"/api/v1/webhooks/{made['id']}/deliveries/{again['id']}/retry"
    assert spender.http.post(retry).status_code == 202
    until(lambda: len(receiver.came), lambda count: count == 3)
    assert spender.http.delete(f"/api/v1/webhooks/{made['id']}").status_code == 200


@pytest.mark.parametrize("url", ["http://example.com/", "https://10.0.0.1/", "gopher://x/"])
def test_private_addresses_are_refused(spender: Tenant, url: str) -> None:
    answer = spender.http.post("/api/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["param"]) == (400, "url")


def test_a_budget_warns_and_stops(platform: Platform, spender: Tenant, receiver: Receiver) -> None:
    hook(spender, receiver.url, "budget.*")
    spender.openai.chat.completions.create(model="mine", messages=ASK, max_tokens=4)
    found = platform.loraplex("tenants", "set", "spender", "--budget", "0.0000001")
    assert found.returncode == 0, found.stderr
    until(receiver.types, lambda types: "budget.exceeded" in types)

    def refused() -> str:
        try:
            spender.openai.chat.completions.create(model="mine", messages=ASK, max_tokens=4)
        except openai.APIStatusError as error:
            return str(error.code)
        return ""

    until(refused, lambda code: code == "insufficient_quota")
    with pytest.raises(openai.RateLimitError, match="loraplex tenants set"):
        spender.openai.chat.completions.create(model="mine", messages=ASK, max_tokens=4)
    mine = until(
        lambda: spender.http.get("/api/v1/deployments/mine").json(),
        lambda row: row["status"] == "stopped",
    )
    assert "budget" in mine["reason"]
    assert spender.http.post("/api/v1/deployments/mine/start").status_code == 429
    # With more of it all goes on.
    assert platform.loraplex("tenants", "set", "spender", "--budget", "none").returncode == 0
    assert spender.http.post("/api/v1/deployments/mine/start").status_code == 200
    spender.openai.chat.completions.create(model="mine", messages=ASK, max_tokens=4)
    assert spender.http.delete("/api/v1/deployments/mine").status_code == 200
