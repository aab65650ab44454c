"""/api/v1/live: all who watch are told the same, once; nobody is told what isn't theirs to see."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.e2e.running import Platform
from tests.e2e.test_limits_and_usage import Tenant

pytestmark = pytest.mark.e2e


@contextmanager
def watching(http: httpx.Client, **options: Any) -> Iterator[Iterator[ServerSentEvent]]:
    with connect_sse(http, "GET", "/api/v1/live", **options) as source:
        yield source.iter_sse()


def next_of(events: Iterator[ServerSentEvent], kind: str) -> Any:
    return next(json.loads(each.data) for each in events if each.event == kind)


def test_all_who_watch_see_a_change_and_only_that(platform: Platform) -> None:
    http = platform.http()
    platform.deploy("watched", min_replicas=0)
    with watching(http) as first, watching(http) as second:
        for stream in (first, second):
            names = [each["name"] for each in next_of(stream, "deployments")]
            assert {"chat", "watched"} <= set(names)
        assert http.patch("/api/v1/deployments/watched", json={"description": "seen"}).is_success
        for stream in (first, second):
            described: dict[str, str] = {}
            while described.get("watched") != "seen":  # its status may change before
                changed = next_of(stream, "changed")
                described = {each["name"]: each["description"] for each in changed}
        http.delete("/api/v1/deployments/watched")
        for stream in (first, second):
            names = [each["name"] for each in next_of(stream, "deployments")]
            assert "watched" not in names


def test_events_go_on_after_the_last_one(platform: Platform) -> None:
    http = platform.http()
    with watching(http) as stream:
        last = next(each for each in stream if each.event == "events")
    platform.deploy("later", min_replicas=0)
    with watching(http, headers={"last-event-id": last.id}) as stream:
        told = next_of(stream, "events")
    assert "later" in [each["deployment"] for each in told]
    assert min(each["id"] for each in told) > int(last.id) - 50
    http.delete("/api/v1/deployments/later")
    with watching(http, headers={"last-event-id": "9" * 30}) as stream:
        assert len(next_of(stream, "events")) > 1, "as if it had not been given"


def test_who_has_lost_the_key_sees_no_more(platform: Platform) -> None:
    """Though others of the tenant go on watching."""
    http = platform.http()
    lost = http.post("/api/v1/keys", json={"name": "lost", "scopes": ["deployments"]}).json()
    headers = {"authorization": f"Bearer {lost['key']}"}
    with watching(http) as stays, watching(http, headers=headers) as ends:
        next_of(ends, "deployments")
        http.delete(f"/api/v1/keys/{lost['id']}")
        assert [each.event for each in ends][-1] == "ended"
        assert next_of(stays, "deployments")


def test_what_is_not_theirs_is_not_told(platform: Platform) -> None:
    http = platform.http()
    asks = {"name": "asks", "scopes": ["inference"]}
    key = http.post("/api/v1/keys", json=asks).json()
    headers = {"authorization": f"Bearer {key['key']}"}
    refused = http.get("/api/v1/live?deployment=chat", headers=headers)
    assert refused.status_code == 403, "as its charts are"
    with watching(http, headers=headers) as stream:
        assert next_of(stream, "rates") is None
    http.delete(f"/api/v1/keys/{key['id']}")
    platform.openai().completions.create(model="chat", prompt="Hi", max_tokens=2)
    assert platform.deployment("chat")["replicas"]
    assert platform.loraplex("share", "chat").returncode == 0
    other = Tenant(platform, "watcher")
    with watching(other.http) as stream:
        assert [each["replicas"] for each in next_of(stream, "deployments")] == [[]]
        assert next_of(stream, "rates") == {}
    assert platform.loraplex("share", "chat", "--off").returncode == 0
