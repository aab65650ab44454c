"""A browser for tests and screenshots: Debian's chromium, driven by Playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests import programs

REPOSITORY = Path(__file__).parents[2]
AXE = REPOSITORY / "console" / "node_modules" / "axe-core" / "axe.min.js"
BUILT = REPOSITORY / "api" / "console" / "static" / "index.html"


def need() -> str:
    """Path of chromium; and the console must be built."""
    found = programs.need("chromium", "chromium-browser", package="chromium")
    if not (BUILT.is_file() and AXE.is_file()):
        programs.lacks("the built console (make console)")
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
