"""Events for the world outside: signed so that a library verifies them, sent to public places."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest
from sqlmodel import Session, select

from loraplex import outbound, webhooks
from loraplex.budget_state import BudgetState
from loraplex.budgets import judge, month_of
from loraplex.database import connect, migrate
from loraplex.entities import Tenant, Webhook, WebhookDelivery


def test_a_library_verifies_what_we_sign() -> None:
    """OpenAI's SDK has an implementation of Standard Webhooks."""
    secret = webhooks.new_secret()
    body = json.dumps({"type": "ping", "data": {}}).encode()
    headers = webhooks.signed(secret, "hook-1.e5", int(time.time()), body)
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    client.webhooks.verify_signature(body, headers)
    for altered in (body + b" ", b"{}"):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.verify_signature(altered, headers)
    old = webhooks.signed(secret, "hook-1.e5", int(time.time()) - 3600, body)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body, old)


@pytest.mark.parametrize(
    ("patterns", "type_", "wanted"),
    [
        (["*"], "deployment.ready", True),
        (["deployment.*"], "deployment.ready", True),
        (["deployment.*"], "budget.warned", False),
        (["budget.warned", "deployment.errored"], "deployment.errored", True),
        (["deployment.ready"], "deployment.standby", False),
        (["budget.warned"], "ping", True),
    ],
)
def test_who_wants_what(patterns: list[str], type_: str, wanted: bool) -> None:
    assert webhooks.wanted(patterns, type_) == wanted


def test_an_event_that_is_announced_again_is_one_delivery(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hooks.db'}"
    migrate(url)
    with Session(connect(url)) as session:
        session.add_all([Tenant(id="a"), Tenant(id="b")])
        session.flush()
        for tenant, events in (("a", ["*"]), ("a", ["budget.*"]), ("b", ["*"])):
            session.add(Webhook(tenant_id=tenant, url="https://x", events=events, secret="s"))
        session.flush()
        at = datetime.now(UTC)
        for _ in range(2):
            webhooks.announce(session, "a", "deployment.ready", "e7", at, {"deployment": "d"})
            session.commit()
        (row,) = session.exec(select(WebhookDelivery)).all()
        assert json.loads(row.body)["data"] == {"deployment": "d"}
        session.delete(session.get_one(Webhook, row.webhook_id))
        session.commit()
        assert session.exec(select(WebhookDelivery)).all() == []


REFUSED = (
    "http://example.com/hook",
    "https://127.0.0.1/hook",
    "https://10.1.2.3/",
    "https://169.254.169.254/latest/meta-data",
    "https://[::1]:8443/",
    "https://[::ffff:10.0.0.1]/",
    "https://[fd00::1]/",
    "https://[2002:a00:1::]/",
    "https://0.0.0.0/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://user:word@example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "https://",
    "no url",
    "https://example.com:99999/",
    "https://[x/",
    "https://localhost/",
    "https://a..b/",
    "https://printer.local/",
    "https://intranet/",
)


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_that_lead_inside_are_refused(url: str) -> None:
    with pytest.raises(outbound.RefusedAddress):
        outbound.check(url, [])


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001"])
def test_names_that_lead_inside_are_refused_when_they_are_called(host: str) -> None:
    """However the C library resolves them."""
    with pytest.raises((outbound.RefusedAddress, OSError)):
        outbound.post(f"https://{host}:9/", b"{}", {}, [])


def test_public_and_allowed_addresses_pass() -> None:
    assert outbound.check("https://example.com:8443/hook?x=1", []).port == 8443
    assert outbound.check("https://93.184.216.34/", []).host == "93.184.216.34"
    assert outbound.check("http://127.0.0.1:9000/hook", ["127.0.0.1"]).port == 9000


def test_budgets() -> None:
    found = [judge(cost, 10.0, 0.8) for cost in (0.0, 7.99, 8.0, 9.99, 10.0, 11.0)]
    within, warned, exceeded = BudgetState
    assert found == [within, within, warned, warned, exceeded, exceeded]
    assert judge(0.0, 0.0, 0.8) is exceeded, "nothing may be spent"
    at = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    assert month_of(at) == ("2026-12", int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()))
