"""The console in Debian's chromium: bytes of its page, time to first paint, and panning a day.

- `page_kb`: what comes over the wire for the first page, compressed (aim: at most 150).
- `first_paint_s`: first contentful paint, median of fresh browsers' contexts (aim: at most 1).
- `pan_fps`: frames drawn each second, by the browser's trace, while eight charts of one day of
  five-second points are panned through half of it (aim: 60); `pan_frame_ms_p95`: the main thread's
  work for a frame.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page
from sqlmodel import Session

from benchmarks import report
from benchmarks.delivery.processes import Processes
from benchmarks.model_store import model_store
from loraplex import charts
from loraplex.chart_points import add_points
from loraplex.database import connect
from loraplex.entities import PointKind
from loraplex.totals import Answer
from tests.e2e.browser import browser, log_in

DAY_S = 86400
PAN_S = 5.0


def measure(quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="console-") as folder:
        processes = Processes(Path(folder) / "home", model_store(), LORAPLEX_PRICES='{"*": 1}')
        try:
            _fill(
                f"sqlite:///{Path(folder) / 'home' / 'loraplex.db'}", processes.lane.deployment_id
            )
            url = f"http://127.0.0.1:{processes.ports['redis']}"
            with browser() as chromium:
                result = {
                    "page_kb": round(_weight(chromium, url) / 1000, 1),
                    "first_paint_s": _paint(chromium, url, 3 if quick else 9),
                    **_pan(chromium, url, processes.key),
                }
        finally:
            processes.stop()
    report.table("Console", ("", "measured"), list(result.items()))
    return result


def _fill(database: str, deployment: str) -> None:
    """A day of work, each point different."""
    now = int(time.time())
    answers: dict[tuple[str, int], charts.Figures] = {}
    load: dict[tuple[str, int], charts.Figures] = {}
    for number, at in enumerate(range(now - DAY_S, now, charts.FINE_S)):
        wave = 1 + number % 97 / 97
        said = Answer("stop", "", 0.1 * wave, 0.3 * wave, 2.0 * wave, 50, 100)
        answers[deployment, at] = charts.of_answer(said, first=True)
        load[charts.LOOKED, at] = {"s": 5.0}
        load[deployment, at] = {
            **{"served_s": 5.0, "ready": 5.0 * (1 + number // 400 % 3)},
            **{"utilization": 2.5 * wave, "kv_used": wave, "generated": 500 * wave, "cost": 0.001},
        }
    with Session(connect(database)) as session:
        for kind, points in ((PointKind.ANSWERS, answers), (PointKind.LOAD, load)):
            keys = list(points)
            for first in range(0, len(keys), 500):
                add_points(session, kind, {key: points[key] for key in keys[first : first + 500]})
        session.commit()


def _weight(chromium: Browser, url: str) -> int:
    page = chromium.new_page()
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    sizes: list[int] = []
    client.on(
        "Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"]))
    )
    page.goto(url, wait_until="networkidle")
    page.close()
    return sum(sizes)


def _paint(chromium: Browser, url: str, rounds: int) -> float:
    found = []
    for _ in range(rounds):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(url)
        page.get_by_label("API key").wait_for()
        found.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        context.close()
    return round(statistics.median(found) / 1000, 3)


def _pan(chromium: Browser, url: str, key: str) -> dict[str, float]:
    page = chromium.new_page(viewport={"width": 1280, "height": 1400})
    log_in(page, url, key)
    page.goto(f"{url}/#/deployments/chat/health")
    page.get_by_label("Range").select_option("24h")
    while page.evaluate("window.loraplexCharts?.range_s") != DAY_S:
        page.wait_for_timeout(50)
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_timeout(1000)
    events = _traced(page, "() => new Promise(" + _PAN.replace("PAN_MS", str(PAN_S * 1000)) + ")")
    frames = [event for event in events if event["name"] == "DrawFrame"]
    work = page.evaluate("window.panned")
    drawn = page.locator(".plot canvas").count()
    page.close()
    return {
        "pan_fps": round(len(frames) / PAN_S, 1),
        "pan_frame_ms_p95": round(statistics.quantiles(work, n=20)[18], 2),
        "pan_charts": drawn,
    }


# Drags the first chart to and fro by some pixels a frame; notes how long the script works in each.
_PAN = """done => {
    const over = document.querySelector('.plot .u-over'), box = over.getBoundingClientRect()
    const at = x => ({clientX: box.left + x, clientY: box.top + 50, pointerId: 1, bubbles: true})
    over.setPointerCapture = () => {}
    over.dispatchEvent(new PointerEvent('pointerdown', at(box.width / 2)))
    const began = performance.now(), work = []
    let x = box.width / 2, by = -4
    const frame = () => {
        const start = performance.now()
        if (start - began > PAN_MS) { window.panned = work; return done() }
        x += by
        if (x < 20 || x > box.width - 20) by = -by
        over.dispatchEvent(new PointerEvent('pointermove', at(x)))
        requestAnimationFrame(() => queueMicrotask(() => work.push(performance.now() - start)))
        requestAnimationFrame(frame)
    }
    requestAnimationFrame(frame)
}"""


def _traced(page: Page, script: str) -> list[dict[str, Any]]:
    """Run it, and give the trace's events of frames."""
    page.context.browser.start_tracing(  # type: ignore[union-attr]
        page=page,
        categories=["disabled-by-default-devtools.timeline.frame", "devtools.timeline.frame"],
    )
    page.evaluate(script)
    raw = page.context.browser.stop_tracing()  # type: ignore[union-attr]
    events: list[dict[str, Any]] = json.loads(raw)["traceEvents"]
    return events


if __name__ == "__main__":
    report.main("console", measure, ("playwright", "fastapi"))
