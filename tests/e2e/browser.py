"""A browser for tests and screenshots: Debian's chromium, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).parents[2]
AXE = REPOSITORY / "console" / "node_modules" / "axe-core" / "axe.min.js"
BUILT = REPOSITORY / "api" / "console" / "static" / "index.html"


def need() -> str:
    """Path of chromium. Skips the test where there is none, or no built console; in CI
    (LORAPLEX_BROWSER=required) it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    lacks = [] if found else ["chromium"]
    lacks += [] if BUILT.is_file() and AXE.is_file() else ["the built console (make console)"]
    if lacks:
        text = f"the console's tests need {' and '.join(lacks)}"
        if os.environ.get("LORAPLEX_BROWSER") == "required":
            pytest.fail(text)
        pytest.skip(text)
    assert found is not None
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    path = need()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


def log_in(page: Page, url: str, key: str) -> None:
    page.goto(url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Deployments").wait_for()
