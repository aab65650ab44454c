"""Nothing is open by accident: each route asks for a key, and for a scope of it."""

from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts

from api.app import build
from api.predibase.finetuning import STREAM
from api.security import OPEN, Needs, authenticated, is_open
from loraplex.scopes import Scope
from loraplex.settings import ApiSettings

DOCUMENTATION = {"/openapi.json"}
CONTEXTS = list(iter_route_contexts(build(ApiSettings()).routes))
ROUTES = {
    f"{min(each.methods)} {each.path}": each
    for each in CONTEXTS
    if each.methods and each.path not in DOCUMENTATION
}


def calls(dependant: Dependant) -> Iterator[object]:
    for each in dependant.dependencies:
        yield each.call
        yield from calls(each)


def scopes(route: RouteContext) -> set[Scope]:
    return {s for call in calls(route.dependant) if isinstance(call, Needs) for s in call.scopes}


@pytest.mark.parametrize("name", ROUTES)
def test_each_route_needs_a_key_with_a_scope(name: str) -> None:
    route = ROUTES[name]
    assert authenticated in calls(route.dependant)
    assert (not scopes(route)) == is_open(route.path)
    if route.methods - {"GET", "HEAD"} and not is_open(route.path):
        assert len(scopes(route)) == 1, "who may look may not change"


def test_all_routes_were_walked() -> None:
    known = {
        "GET /health",
        "POST /v1/chat/completions",
        "GET /api/v1/keys",
        "PATCH /api/v1/deployments/{name}",
    }
    assert known < set(ROUTES)
    others = {each.path for each in CONTEXTS if not each.methods}
    assert others == {STREAM, "/assets"}, "it asks for a key itself; the page's files"
    console = ("/", "/docs", "/assets/", "/console/session", "/favicon.svg")
    assert (*console, "/health", "/transfers/") == OPEN
    assert not is_open("/api/v1/keys") and not is_open("/console/session/x")
    assert not is_open("/transfers") and not is_open("/health/x")
    assert set(Scope) == {scope for route in ROUTES.values() for scope in scopes(route)}
