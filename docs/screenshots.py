"""`python -m docs.screenshots`: each page of the console, in both themes, wide and narrow.

Of the platform that runs in LORAPLEX_HOME, after some load: a benchmark's mix, a fine-tuning job.
"""

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from loraplex.embedded.record import PlatformRecord
from tests.e2e.browser import browser, log_in

FOLDER = Path(__file__).parent / "screenshots"
WIDTHS = {"wide": 1280, "narrow": 390}
NAME = "smollm2"
TABS = ("overview", "health", "adapters", "playground", "events", "configuration", "logs")
PAGES = {
    "deployments": "deployments",
    **{f"deployment-{tab}": f"deployments/{NAME}/{tab}" for tab in TABS},
    "adapters": "adapters",
    "repo": "adapters/pirate",
    "fine-tuning": "fine-tuning",
    "usage": "usage",
    "keys": "keys",
    "system": "system",
}
_COLORS = 64  # of the stored pictures: they are flat


def main() -> None:
    record = PlatformRecord.load(Path(os.environ["LORAPLEX_HOME"]))
    assert record is not None, "no platform runs in LORAPLEX_HOME"
    FOLDER.mkdir(exist_ok=True)
    job = _work()
    with browser() as chromium:
        page = chromium.new_page()
        _shoot(page, record.url, "login", "")
        log_in(page, record.url, record.api_key)
        for name, where in (PAGES | {"fine-tuning-job": f"fine-tuning/{job}"}).items():
            _shoot(page, record.url, name, where)


def _work() -> str:
    """So that there is something to be seen. Returns a fine-tuning job's id."""
    load = ("-m", "base", "-m", "pirate/1=2", "-m", "json/1", "-c", "6", "-n", "40")
    _loraplex("bench", NAME, *load)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "tickets.jsonl"
        rows.write_text("\n".join(_row(number) for number in range(64)) + "\n")
        settings = ("--set", "epochs=8", "--set", "validation_split=0.1")
        command = ("finetune", str(rows), "--base", NAME, "--repo", "tickets", *settings)
        told = _loraplex(*command, "--detach")
    found = re.search(r"ftjob-\w+", told)
    assert found is not None, told
    return found[0]


def _row(number: int) -> str:
    part, desk = [("printer", "HW-2"), ("password", "ID-1"), ("network", "NET-4")][number % 3]
    asked = {"role": "user", "content": f"Ticket {number}: the {part} does not work."}
    return json.dumps({"messages": [asked, {"role": "assistant", "content": desk}]})


def _loraplex(*arguments: str) -> str:
    command = [sys.executable, "-m", "loraplex.cli.app", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _shoot(page: Page, url: str, name: str, where: str) -> None:
    for theme in ("light", "dark"):
        for width, pixels in WIDTHS.items():
            page.set_viewport_size({"width": pixels, "height": 860})
            page.goto(url)
            page.evaluate(f"localStorage.setItem('theme', '{theme}')")
            page.goto(f"{url}/#/{where}")
            page.reload()
            page.locator("h1").first.wait_for()
            if name == "deployment-playground":
                _play(page)
            page.wait_for_timeout(1500)
            picture = Image.open(io.BytesIO(page.screenshot(full_page=width == "wide")))
            flat = picture.convert("RGB").quantize(_COLORS)
            flat.save(FOLDER / f"{name}-{theme}-{width}.png", optimize=True)


def _play(page: Page) -> None:
    page.get_by_role("button", name="Send").click()
    page.locator(".answer", has_text=" ").first.wait_for()
    page.wait_for_timeout(2500)


if __name__ == "__main__":
    main()
