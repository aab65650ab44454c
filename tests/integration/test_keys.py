"""Keys and tenants, over HTTP: who may do what, and nobody else."""

import random
import string
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlmodel import Session

from api.app import build
from loraplex import apikeys
from loraplex.database import connect
from loraplex.entities import Adapter, ApiKey, Deployment, utc_now
from loraplex.settings import ApiSettings

MODEL = "org/model"
ALTERED = 1000


@pytest.fixture(scope="module")
def settings(
    valkey_url: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> ApiSettings:
    home = tmp_path_factory.mktemp("home")
    found = ApiSettings(home=home, redis_url=valkey_url, database_url=database_url)
    with Session(connect(found.database)) as session:
        apikeys.store(session, apikeys.FIRST_TENANT, "first", "pb_operator")
    return found


@pytest.fixture(scope="module")
def api(settings: ApiSettings) -> Iterator[TestClient]:
    with TestClient(build(settings)) as client:
        yield client


def ask(api: TestClient, key: str, method: str, path: str, **body: Any) -> Response:
    headers = {"authorization": f"Bearer {key}"}
    answer: Response = api.request(method, path, headers=headers, json=body or None)
    return answer


def made(api: TestClient, name: str, *scopes: str, by: str = "pb_operator", **more: Any) -> Any:
    answer = ask(api, by, "POST", "/api/v1/keys", name=name, scopes=scopes, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def acme(api: TestClient) -> str:
    """Another tenant's admin key."""
    assert ask(api, "pb_operator", "POST", "/api/v1/tenants", name="acme").status_code == 201
    key: str = made(api, "boss", "admin", tenant="acme")["key"]
    return key


REFUSED = {
    "inference": ("POST /api/v1/deployments", "POST /api/v1/adapters", "GET /api/v1/dead-letters"),
    "deployments": ("GET /v1/models", "POST /v1/chat/completions", "POST /api/v1/adapters"),
    "adapters": ("POST /v1/completions", "DELETE /api/v1/deployments/x", "GET /api/v1/keys"),
}
ALLOWED = {
    "inference": ("GET /v1/models", "GET /api/v1/deployments"),
    "deployments": ("GET /api/v1/deployments", "GET /api/v1/dead-letters"),
    "adapters": ("GET /api/v1/adapters",),
    "admin": ("GET /v1/models", "GET /api/v1/keys", "GET /api/v1/deployments"),
}


@pytest.mark.parametrize("scope", ALLOWED)
def test_a_key_may_do_what_its_scopes_say(api: TestClient, acme: str, scope: str) -> None:
    key = made(api, scope, scope, by=acme)["key"]
    for route in ALLOWED[scope]:
        assert ask(api, key, *route.split()).status_code == 200, route
    for route in REFUSED.get(scope, ("POST /api/v1/tenants",)):
        answer = ask(api, key, *route.split())
        assert answer.status_code == 403, route
        if "/v1/" in route and "/api/" not in route:
            assert answer.json()["error"]["type"] == "permission_error"


def test_a_key_is_shown_once_and_listed_by_what_it_begins_with(api: TestClient, acme: str) -> None:
    new = made(api, "ci", "inference", "adapters", by=acme)
    listed = ask(api, acme, "GET", "/api/v1/keys")
    assert new["key"] not in listed.text and new["key"].startswith(new["hint"])
    row = next(k for k in listed.json()["data"] if k["id"] == new["id"])
    assert row == {name: value for name, value in new.items() if name != "key"}


def test_a_revoked_key_ends_at_once(api: TestClient, acme: str) -> None:
    new = made(api, "short", "inference", by=acme)
    assert ask(api, new["key"], "GET", "/v1/models").status_code == 200
    assert ask(api, acme, "DELETE", f"/api/v1/keys/{new['id']}").json()["revoked_at"]
    refused = ask(api, new["key"], "GET", "/v1/models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert ask(api, acme, "POST", f"/api/v1/keys/{new['id']}/rotate").status_code == 409


def test_nobody_locks_himself_out(api: TestClient, acme: str) -> None:
    mine = next(
        k for k in ask(api, acme, "GET", "/api/v1/keys").json()["data"] if k["name"] == "boss"
    )
    assert ask(api, acme, "DELETE", f"/api/v1/keys/{mine['id']}").status_code == 409


def test_a_rotated_key_works_until_its_grace_ends(
    api: TestClient, acme: str, settings: ApiSettings
) -> None:
    old = made(api, "turn", "inference", by=acme, expires_in_s=3600)
    path = f"/api/v1/keys/{old['id']}/rotate"
    new = ask(api, acme, "POST", path, grace_s=600).json()
    assert (new["name"], new["scopes"]) == ("turn", ["inference"]) and new["expires_at"]
    again = ask(api, acme, "POST", path)
    assert again.status_code == 409 and new["id"] in again.json()["detail"]
    for key in (old["key"], new["key"]):
        assert ask(api, key, "GET", "/v1/models").status_code == 200
    with Session(connect(settings.database)) as session:
        row = session.get_one(ApiKey, old["id"])
        assert row.expires_at and row.expires_at < utc_now() + timedelta(seconds=601)
        row.expires_at = utc_now()  # as when the time has passed
        session.commit()
    ask(api, acme, "POST", f"/api/v1/keys/{new['id']}/rotate", grace_s=600)  # looks again
    refused = ask(api, old["key"], "GET", "/v1/models")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "expired_api_key")


def test_a_key_that_was_set_by_hand_is_changed_where_it_was_set(api: TestClient) -> None:
    keys = ask(api, "pb_operator", "GET", "/api/v1/keys").json()["data"]
    (first,) = [key for key in keys if key["name"] == "first"]
    assert first["hint"] == "", "nothing of it is kept"
    assert ask(api, "pb_operator", "POST", f"/api/v1/keys/{first['id']}/rotate").status_code == 409


def test_when_a_key_was_last_used_is_kept(api: TestClient, acme: str) -> None:
    new = made(api, "used", "inference", by=acme)
    assert ask(api, new["key"], "GET", "/v1/models").status_code == 200
    api.app.state.loraplex.keyring.write_used()  # type: ignore[attr-defined]
    listed = ask(api, acme, "GET", "/api/v1/keys").json()["data"]
    assert next(k for k in listed if k["id"] == new["id"])["last_used_at"]


def test_tenants_see_only_what_is_theirs(api: TestClient, acme: str, settings: ApiSettings) -> None:
    with Session(connect(settings.database)) as session:
        bounds = {"min_replicas": 0, "max_replicas": 1, "cooldown_time": 1}
        row = Deployment(
            tenant_id="dev", name="mine", base_model=MODEL, scale_up_threshold=1, **bounds
        )
        session.add(row)
        about: dict[str, Any] = {"digest": "0" * 64, "rank": 4, "targets": [], "size_bytes": 1}
        session.add(Adapter(tenant_id="dev", repo="poet", version=1, base_model=MODEL, **about))
        session.commit()
    assert ask(api, acme, "GET", "/v1/models").json()["data"] == []
    assert ask(api, acme, "GET", "/api/v1/deployments").json()["data"] == []
    for path in ("", "/events", "/explain", "/replicas", "/comparison"):
        assert ask(api, acme, "GET", f"/api/v1/deployments/mine{path}").status_code == 404
    for model in ("mine", "poet/1", "mine:poet/1", MODEL):
        said = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        assert ask(api, acme, "POST", "/v1/chat/completions", **said).status_code == 404
    for base in ("/deployments/mine", "/x/deployments/v2/llms/mine"):
        for path in ("", "/generate", "/generate_stream", "/tokenize"):
            assert ask(api, acme, "POST", base + path, inputs="Hi").status_code == 404
        said = {"model": "", "messages": [{"role": "user", "content": "Hi"}]}
        assert ask(api, acme, "POST", f"{base}/v1/chat/completions", **said).status_code == 404
        for path in ("/info", "/health"):
            assert ask(api, acme, "GET", base + path).status_code == 404
    theirs = made(api, "theirs", "inference")["id"]
    assert ask(api, acme, "DELETE", f"/api/v1/keys/{theirs}").status_code == 404
    assert ask(api, acme, "GET", "/api/v1/keys?tenant=dev").status_code == 404
    assert ask(api, acme, "POST", "/api/v1/keys", name="x", tenant="dev").status_code == 404
    assert ask(api, acme, "POST", "/api/v1/tenants", name="more").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a\n"},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a", "expires_in_s": 0},
        {"name": "a", "expires_in_s": 1e300},
        {"name": "a", "sha256": "0" * 64},
        {"name": "a", "tenant": "nobody"},
        {"name": "a", "tenant": "\0"},
    ],
)
def test_bad_input_is_refused(api: TestClient, body: dict[str, Any]) -> None:
    assert ask(api, "pb_operator", "POST", "/api/v1/keys", **body).status_code in (400, 404)


@pytest.mark.parametrize(
    "path", ["keys?tenant=%00", "keys?tenant=x", "keys/%00", f"deployments/x/events?after={2**63}"]
)
def test_bad_queries_are_refused(api: TestClient, path: str) -> None:
    verb = "DELETE" if path.startswith("keys/") else "GET"
    assert ask(api, "pb_operator", verb, f"/api/v1/{path}").status_code in (400, 404)


def test_altered_keys_open_nothing(api: TestClient, acme: str) -> None:
    rng = random.Random(8)
    for _ in range(ALTERED):
        place = rng.randrange(len(acme))
        other = rng.choice(string.ascii_letters + string.digits + "-_é ")
        wrong = rng.choice(
            [
                acme[:place] + other + acme[place + 1 :],
                acme[:place] + acme[place + 1 :],
                acme[:place] + other + acme[place:],
                acme.swapcase(),
                apikeys.fingerprint(acme),
                apikeys.new_key(),
            ]
        )
        if wrong.strip() != acme:
            headers = {"authorization": f"Bearer {wrong}".encode()}
            assert api.get("/api/v1/keys", headers=headers).status_code == 401, wrong
