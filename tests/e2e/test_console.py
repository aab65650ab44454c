"""The console in a real browser: what it shows is what happens, and what it does is done."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from loraplex.store.models import DEMO_MODEL
from tests.e2e.browser import AXE, browser, log_in
from tests.e2e.running import COOLDOWN_S, Platform, until
from tests.e2e.test_platform import wait_for_standby

pytestmark = pytest.mark.e2e

PATIENCE_MS = 90_000
PAGES = ("deployments", "adapters", "adapters/pirate", "fine-tuning", "usage", "keys", "system")
TABS = ("overview", "health", "adapters", "playground", "events", "configuration", "logs")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with browser() as running:
        yield running


@pytest.fixture
def page(chromium: Browser, platform: Platform) -> Iterator[Page]:
    """Logged in, as the tenant that runs the platform. Scripts must not fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    failed: list[str] = []
    opened.on("pageerror", lambda error: failed.append(str(error)))
    log_in(opened, platform.url, platform.api_key)
    yield opened
    context.close()
    assert not failed


def _go(page: Page, platform: Platform, where: str) -> None:
    page.goto(f"{platform.url}/#/{where}")


def _status(page: Page) -> Any:
    return page.locator("h1 .pill")


def test_a_deployment_is_made_asked_watched_and_deleted(page: Page, platform: Platform) -> None:
    page.get_by_role("button", name="New deployment").click()
    page.get_by_label("Name", exact=True).fill("by-hand")
    page.get_by_label("Base model").fill(DEMO_MODEL)
    page.get_by_label("Cooldown").fill(str(COOLDOWN_S))
    seen = _statuses(page)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="by-hand")).to_be_visible()
    expect(_status(page)).to_have_text("standby")
    page.get_by_role("link", name="Playground").click()
    page.get_by_text("Parameters").click()
    page.get_by_label("Most tokens").fill("24")
    with platform.no_starts():  # one may be shorter than the second between two looks
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".clock").first).to_contain_text(re.compile("queued|starting|asked"))
        expect(_status(page)).to_have_text("initializing")
    expect(_status(page)).to_have_text("ready")
    for variant in ("Variant 1", "Variant 2"):
        section = page.get_by_role("region", name=variant)
        expect(section.locator(".answer")).to_have_text(re.compile(r"\w+ \w+"))
        expect(section.locator(".ttft")).to_have_text(re.compile(r"\d+(\.\d+)? m?s"))
    expect(_status(page)).to_have_text("standby")
    told = seen()
    assert [each for each in told if each in ("initializing", "ready")] == ["initializing", "ready"]
    assert told[-1] == "standby"
    page.get_by_role("button", name="Delete").click()
    page.get_by_label("Type by-hand to go on").fill("by-hand")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Deployments")).to_be_visible()
    expect(page.get_by_role("link", name="by-hand")).to_have_count(0)
    assert platform.http().get("/api/v1/deployments/by-hand").status_code == 404


def _statuses(page: Page) -> Any:
    """Each status that the page has shown, in order, without repetitions."""
    page.evaluate(
        """() => {
            window.seen = []
            new MutationObserver(() => {
                const now = document.querySelector('h1 .pill')?.textContent
                if (now && window.seen.at(-1) !== now) window.seen.push(now)
            }).observe(document.body, {subtree: true, childList: true, characterData: true})
        }"""
    )
    return lambda: page.evaluate("window.seen")


def test_the_charts_say_what_the_metrics_count(page: Page, platform: Platform) -> None:
    """From a deployment that nobody has asked yet: sums over all points, and the counters."""
    platform.deploy("charted", cooldown_time=3600)
    _go(page, platform, "deployments/charted/health")
    for _ in range(3):
        answer = platform.openai().chat.completions.create(
            model="charted", max_tokens=20, messages=[{"role": "user", "content": "Count to ten."}]
        )
        assert answer.usage is not None
    replica = platform.deployment("charted")["replicas"][0]["id"]
    metrics = _metrics(platform)
    generated = _value(metrics[replica], "loraplex_generated_tokens_total")
    counted = until(
        lambda: _value(
            _metrics(platform)["scaler"], "loraplex_requests_total", deployment="charted"
        ),
        lambda requests: requests == 3,
    )

    def shown() -> dict[str, float]:
        sums: dict[str, float] = page.evaluate(_SUMS)
        return sums

    expected = {"requests_per_s": counted, "tokens_per_s": generated}
    least = {name: total - 0.01 for name, total in expected.items()} | {"utilization": 0.0}
    sums = until(shown, lambda sums: all(sums.get(k, 0) > v for k, v in least.items()))
    for name, total in expected.items():
        assert sums[name] == pytest.approx(total, abs=0.01), "each once"
    scaler = _metrics(platform)["scaler"]
    of = {"deployment": "charted"}
    for column, metric in (
        ("queue_s_mean", "loraplex_queue_duration_seconds"),
        ("inference_s_mean", "loraplex_inference_seconds"),
        ("first_token_s_mean", "loraplex_ttft_seconds"),
    ):
        low, high = _mean_of_points(platform, "charted", column)
        mean = _value(scaler, f"{metric}_sum", **of) / _value(scaler, f"{metric}_count", **of)
        assert low - 1e-4 <= mean <= high + 1e-4, column
    assert _value(scaler, "loraplex_replicas", status="ready", **of) == 1
    replicas = page.get_by_role("figure", name=re.compile("^Replicas: ready 1,"))
    expect(replicas).to_be_visible()
    busy = page.get_by_role("figure", name=re.compile("^CPU utilization"))
    expect(busy).to_have_attribute("aria-label", re.compile(r"busy \d+ %"))
    expect(
        page.get_by_role("figure", name=re.compile("^Cost per hour: per hour 3.6"))
    ).to_be_visible()
    platform.http().delete("/api/v1/deployments/charted")


# What the plots draw: sums over the points, times their length.
_SUMS = """() => {
    const sums = {}
    for (const [name, values] of Object.entries(window.loraplexCharts?.columns ?? {}))
        sums[name] = values.reduce((a, b) => a + (b ?? 0), 0) * window.loraplexCharts.step_s
    return sums
}"""


def _mean_of_points(platform: Platform, name: str, column: str) -> tuple[float, float]:
    """Smallest and largest: the mean of all is between them."""
    charts = platform.http().get(f"/api/v1/deployments/{name}/charts?range=15m").json()
    values = [value for value in charts["columns"][column] if value is not None]
    return min(values), max(values)


def _metrics(platform: Platform) -> dict[str, str]:
    """Expositions by process; replicas by their ids."""
    targets = platform.http().get("/api/v1/metrics/targets").json()
    return {
        each["labels"].get("replica", each["labels"]["process"]): httpx.get(
            f"http://{each['targets'][0]}/metrics"
        ).text
        for each in targets
    }


def _value(exposition: str, name: str, **labels: str) -> float:
    """Sum of the samples that have these labels."""
    found = 0.0
    for line in exposition.splitlines():
        if re.match(rf"{name}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def test_replicas_are_set_and_a_bad_value_is_told(page: Page, platform: Platform) -> None:
    platform.deploy("knobs")
    _go(page, platform, "deployments/knobs/configuration")
    scaling = page.get_by_role("form", name="Scaling")
    scaling.get_by_label("Most replicas").fill("3")
    scaling.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").last).to_contain_text("Save: done.")
    assert platform.deployment("knobs")["max_replicas"] == 3
    scaling.get_by_label("Least replicas").fill("5")
    scaling.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").last).to_contain_text("min_replicas (5) is over max_replicas")
    assert platform.deployment("knobs")["min_replicas"] == 0
    scaling.get_by_label("Least replicas").fill("0")
    written = "mon,fri 08:00-18:00 Europe/Berlin min=0"
    scaling.get_by_label("Schedules").fill(f"{written}\nsometimes")
    scaling.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status").last).to_contain_text("“sometimes” is no schedule")
    scaling.get_by_label("Schedules").fill(written)
    scaling.get_by_role("button", name="Save").click()
    schedules = until(lambda: platform.deployment("knobs")["schedules"], bool)
    assert schedules[0] == {
        "min_replicas": 0,
        "days": ["mon", "fri"],
        "start": "08:00",
        "end": "18:00",
        "timezone": "Europe/Berlin",
    }
    limits = page.get_by_role("form", name="What each tenant may ask")
    limits.get_by_label("Tokens per minute").fill("900")
    limits.get_by_role("button", name="Save").click()
    until(lambda: platform.deployment("knobs")["limits"], lambda now: now["tokens_per_min"] == 900)
    before = platform.deployment("knobs")["revision"]
    made_of = page.get_by_role("form", name="What its replicas are made of")
    made_of.get_by_label("Engine").fill("max_running=4\ndtype=float32")
    made_of.get_by_role("button", name="Save").click()
    until(lambda: platform.deployment("knobs")["revision"], lambda now: now == before + 1)
    engine = {"max_running": "4", "dtype": "float32"}
    assert platform.deployment("knobs")["engine"] == engine
    platform.http().delete("/api/v1/deployments/knobs")


def test_an_alias_is_set(page: Page, platform: Platform) -> None:
    _go(page, platform, "adapters/pirate")
    page.get_by_role("button", name="Set an alias").click()
    page.get_by_label("Alias", exact=True).fill("by-hand")
    page.get_by_role("textbox", name="Versions").fill("1=50 99=50")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("99")
    page.get_by_role("textbox", name="Versions").fill("1")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.get_by_role("cell", name="pirate@by-hand", exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete pirate@by-hand").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("cell", name="pirate@by-hand", exact=True)).to_have_count(0)
    assert platform.http().get("/api/v1/repos/pirate/aliases").json()["data"] == []


HIDE = """hidden => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden })
    document.dispatchEvent(new Event('visibilitychange'))
}"""


def test_a_tab_that_was_hidden_misses_nothing(page: Page, platform: Platform) -> None:
    platform.deploy("aside")
    _go(page, platform, "deployments/aside/health")
    until(lambda: page.evaluate("window.loraplexCharts?.columns.time.length"), bool)
    streams: list[str] = []
    page.on("request", lambda asked: streams.append(asked.url) if "/live" in asked.url else None)
    page.evaluate(HIDE, True)
    shown = page.evaluate("loraplexCharts.columns.time.at(-1)")
    charts = "/api/v1/deployments/aside/charts?range=15m"
    times = lambda: platform.http().get(charts).json()["columns"]["time"]  # noqa: E731
    until(times, lambda time: time[-1] >= shown + 30)  # the stream brings the latest 20 s
    assert not streams, "nobody looks"
    page.evaluate(HIDE, False)
    caught = "loraplexCharts.columns.time"
    time = until(lambda: page.evaluate(caught), lambda time: time[-1] >= shown + 30)
    assert len(streams) == 1
    assert {b - a for a, b in itertools.pairwise(time)} == {5}
    platform.http().delete("/api/v1/deployments/aside")


def test_a_killed_replica_s_sentence_is_finished(page: Page, platform: Platform) -> None:
    _go(page, platform, "deployments/chat/playground")
    page.get_by_text("Parameters").click()
    page.get_by_label("Most tokens").fill("600")
    page.get_by_label("Prompt", exact=True).fill("Tell me a very long story of a lighthouse.")
    page.get_by_role("button", name="Send").click()
    answer = page.get_by_role("region", name="Variant 1").locator(".answer")
    expect(answer).to_have_text(re.compile(r"(\w+\W+){12}"))
    before = answer.inner_text()
    page.get_by_role("button", name="Kill the replica").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=PATIENCE_MS)
    assert answer.inner_text().startswith(before.rstrip()[:-1])
    assert len(answer.inner_text()) > len(before)
    expect(page.locator(".variant .bad")).to_have_count(0)


def test_a_restarted_api_is_found_again_without_a_reload(page: Page, platform: Platform) -> None:
    _go(page, platform, "deployments")
    expect(page.locator(".live")).to_have_text("live")
    page.evaluate("window.same = true")
    platform.process("api").kill()
    expect(page.locator(".live")).to_have_text("reconnecting …")
    expect(page.locator(".live")).to_have_text("live")
    platform.deploy("after-restart")
    expect(page.get_by_role("link", name="after-restart")).to_be_visible()
    assert page.evaluate("window.same"), "the page was not loaded anew"
    platform.http().delete("/api/v1/deployments/after-restart")
    expect(page.get_by_role("link", name="after-restart")).to_have_count(0)


def test_a_revoked_key_logs_out(chromium: Browser, platform: Platform) -> None:
    made = platform.http().post("/api/v1/keys", json={"name": "guest", "scopes": ["deployments"]})
    context = chromium.new_context()
    page = context.new_page()
    log_in(page, platform.url, made.json()["key"])
    expect(page.get_by_role("link", name="System")).to_have_count(0)
    cookie = next(each for each in context.cookies() if each["name"] == "loraplex_session")
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    assert made.json()["key"] not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    platform.http().delete(f"/api/v1/keys/{made.json()['id']}")
    expect(page.get_by_label("API key")).to_be_visible(timeout=PATIENCE_MS)
    context.close()


def test_other_sites_change_nothing_and_load_nothing(platform: Platform) -> None:
    url, key = platform.url, platform.api_key
    with httpx.Client(base_url=url, headers={"x-loraplex-console": "1"}) as client:
        assert client.post("/console/session", json={"key": "wrong"}).status_code == 401
        assert client.post("/console/session", json={"key": key}).status_code == 200
        assert client.get("/api/v1/keys").status_code == 200
        del client.headers["x-loraplex-console"]
        assert client.get("/api/v1/keys").status_code == 200
        refused = client.delete("/api/v1/deployments/chat")
        assert refused.status_code == 403 and "x-loraplex-console" in refused.json()["detail"]
        assert client.post("/console/session", json={"key": key}).status_code == 403
        policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    with httpx.Client(base_url=url) as stranger:
        stranger.cookies.set("loraplex_session", "forged")
        assert stranger.get("/api/v1/keys").status_code == 401


def test_the_api_s_reference_is_served_from_here(page: Page, platform: Platform) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{platform.url}/docs")
    expect(page.get_by_text("/v1/chat/completions").first).to_be_visible()
    assert all(url.startswith((platform.url, "data:")) for url in asked)


def test_nothing_serious_stands_in_anybodys_way(page: Page, platform: Platform) -> None:
    """axe-core on each page, in both themes; wide and narrow."""
    wait_for_standby(platform)
    found: list[str] = []
    for theme in ("light", "dark"):
        page.evaluate(f"localStorage.setItem('theme', '{theme}')")
        page.reload()
        for where in (*PAGES, *(f"deployments/chat/{tab}" for tab in TABS)):
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 900})
                _go(page, platform, where)
                expect(page.locator("main h1")).to_be_visible()
                expect(page.get_by_text("Loading …")).to_have_count(0)
                found += [f"{theme} {width} {where}: {each}" for each in _violations(page)]
    assert not found, "\n".join(sorted(set(found)))


def _violations(page: Page) -> list[str]:
    if not page.evaluate("!!window.axe"):
        page.evaluate(AXE.read_text())
    result: Any = page.evaluate("axe.run()")
    return [
        f"{each['id']} {each['nodes'][0]['html'][:120]}"
        for each in result["violations"]
        if each["impact"] in ("serious", "critical")
    ]
