"""The whole platform, as a user starts it: `loraplex up` in a home of its own, or with
LORAPLEX_E2E=compose the stack of compose.yaml, where a Docker engine has its images."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernels.cpu.build import library
from loraplex.apikeys import FIRST_TENANT
from loraplex.store.models import ModelStore
from tests.conftest import ADAPTERS
from tests.e2e import compose_stack
from tests.e2e.running import Platform, make_platform, up
from tests.fakes.hub import Hub
from tests.fakes.hub import hub as a_hub
from tests.fakes.otlp import Collector, collector
from tests.fakes.s3 import put
from tests.fakes.s3 import s3 as an_s3

COMPOSE = os.environ.get("LORAPLEX_E2E") == "compose"
HOST = compose_stack.this_machine() if COMPOSE else "127.0.0.1"  # where fakes are reached


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if COMPOSE and item.get_closest_marker("processes"):
            item.add_marker(pytest.mark.skip(reason="about processes and files of this machine"))


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """The hub that the platform knows, with the repo `org/pirate`."""
    with a_hub(HOST) as running:
        files = (ADAPTERS / "pirate").iterdir()
        running.repos["org/pirate"] = {file.name: file.read_bytes() for file in files}
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """Its S3, by environment variables, with `pirate` in the tenant's folder."""
    with an_s3(HOST) as environment:
        files = (ADAPTERS / "pirate").iterdir()
        content = {file.name: file.read_bytes() for file in files}
        put(environment, "adapters", f"{FIRST_TENANT}/pirate", content)
        yield environment


@pytest.fixture(scope="session")
def traces() -> Iterator[Collector]:
    """Where its traces go: all requests are traced."""
    with collector(HOST) as running:
        yield running


@pytest.fixture(scope="session")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    model_store: ModelStore,
    smollm2: Path,
    hub: Hub,
    s3: dict[str, str],
    traces: Collector,
) -> Iterator[Platform]:
    """Up, with both adapters registered and the deployment `chat`: float32, one replica."""
    home = tmp_path_factory.mktemp("home") / "state"
    settings = {
        "LORAPLEX_DTYPE": "float32",
        # Texts are compared across takeovers.
        "LORAPLEX_DETERMINISTIC": str(library() is not None).lower(),
        "LORAPLEX_MAX_BACKLOG": "20",
        "LORAPLEX_HEARTBEAT_S": "1",
        "LORAPLEX_PRICES": '{"*": 3.6}',
        "LORAPLEX_BUDGET_CHECK_S": "1",
        "LORAPLEX_CALLBACK_HOSTS": f'["{HOST}"]',
        "LORAPLEX_S3_SOURCES": '["s3://adapters/{tenant}"]',
        "HF_ENDPOINT": hub.url,
        "LORAPLEX_OTLP_ENDPOINT": traces.url,
        "LORAPLEX_TRACE_SAMPLE": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    } | s3
    with ExitStack() as stack:
        running: Platform
        if COMPOSE:
            settings["LORAPLEX_KEY_CACHE_S"] = "0.1"  # what one API changes the other sees at once
            running = stack.enter_context(compose_stack.up(home, model_store, settings))
        else:
            settings["LORAPLEX_REDACT"] = "tests.fakes.redact:redact"
            running = make_platform(home, model_store, **settings)
            stack.enter_context(up(running))
        for repo in ("pirate", "json"):
            added = running.loraplex("adapters", "add", repo, str(ADAPTERS / repo))
            assert added.stdout.strip() == f"{repo}/1", added.stderr
        running.deploy("chat")
        yield running
