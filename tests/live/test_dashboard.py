"""The viewer in a real browser, on a real Redis, Kafka and lake."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import expect

from sise.dashboard.app_pages import PAGES
from sise.dashboard.i18n import catalogue
from sise.indicators.registry import Registry
from sise.ops.services import start, stop
from sise.reader import LakeReader
from sise.serving.kafka import ensure_topics
from sise.serving.prices import LatestPrices
from sise.serving.relay import RulesFile
from sise.serving.sender import Sender
from sise.serving.signals import connect
from sise.settings import Settings
from sise.signals.rules import LiveRules
from sise.topics import RULES, key_of, topic_of
from tests.conftest import CONF, HERE
from tests.live.browser import Viewer, chromium, shot, viewer
from tests.live.conftest import settings_in
from tests.sample_lake import HOSTILE

EN, KO = catalogue("en"), catalogue("ko")
pytestmark = pytest.mark.slow

_WAIT = 120_000  # ms for what comes in one second where nothing else runs: a wait ends as soon as it is there
expect.set_options(timeout=_WAIT)


@pytest.fixture(scope="module")
def stack(sample_lake, roomy) -> Iterator[Settings]:
    """A Kafka and a Redis of this module's own (it stops Redis), its own conf, and a copy of the sample lake."""
    folder = Path(tempfile.mkdtemp(dir=roomy))
    folder.chmod(0o711)
    settings = settings_in(folder)
    start(settings, ("kafka", "redis"))
    conf = folder / "conf"
    shutil.copytree(CONF, conf)
    shutil.copytree(sample_lake.local / "reports", settings.local / "reports")
    shutil.copytree(sample_lake.lake, settings.lake)  # a backtest writes
    yield dataclasses.replace(settings, conf=conf, today=sample_lake.today, redis_prefix="view:", topic_prefix="view-")
    stop(settings, ("kafka", "redis"))


@pytest.fixture(scope="module")
def relay(stack, tmp_path_factory) -> Iterator[None]:
    """The relay as a user starts it: what fires goes from Kafka to Redis."""
    ensure_topics(stack)
    log = tmp_path_factory.mktemp("relay") / "relay.log"
    environment = {
        "SISE_LAKE": stack.lake,
        "SISE_CONF": str(stack.conf),
        "SISE_KAFKA": stack.kafka,
        "SISE_REDIS_URL": stack.redis,
        "SISE_TOPIC_PREFIX": stack.topic_prefix,
        "SISE_REDIS_PREFIX": stack.redis_prefix,
        "SISE_LOCAL": str(stack.local),
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "jobs/relay_signals.py"],
            cwd=HERE,
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    # The group has a coordinator and its partitions when the first signal is through.
    fire(stack, "KR:WARM", "rsi_oversold")
    client, end = connect(stack), time.monotonic() + 240
    while not client.xlen(f"{stack.redis_prefix}signals"):
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
    yield
    process.terminate()
    try:
        process.wait(60)
    finally:
        process.kill()


@pytest.fixture(scope="module")
def site(stack, relay, tmp_path_factory) -> Iterator[Viewer]:
    with viewer(stack, tmp_path_factory.mktemp("viewer")) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser, site, request):
    """Opens a page of the viewer; at the end nothing went wrong in its script."""
    contexts, problems = [], []
    said = site.log.stat().st_size

    def go(path: str, ready: str = ".sg, .sc, [data-testid=stAlert]", **options):
        options = {"locale": "en-US", "timezone_id": "UTC", "viewport": {"width": 1440, "height": 900}, **options}
        context = browser.new_context(**options)
        context.set_default_timeout(_WAIT)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(site.url + path)
        page.wait_for_selector(ready)
        return page

    yield go
    for context in contexts:
        if problems or getattr(request.node, "went_wrong", False):
            for n, page in enumerate(context.pages):
                shot(page, f"failed-{request.node.name}-{n}")
        context.close()
    assert not problems
    log = site.log.read_bytes()[said:].decode(errors="replace")
    assert "Traceback" not in log, log[-3000:]


_OFFSET = iter(range(1, 10_000))


def fire(stack: Settings, share: str, rule: str, price: float = 1000.0, **other) -> float:
    """A record on tick-rules as the detection writes it, of a share inside a rule; the relay makes it a signal. When
    it was sent."""
    country, _, symbol = share.partition(":")
    now = int(time.time() * 1000)
    record = {
        "country": country,
        "symbol": symbol,
        "market": "NASDAQ" if country == "US" else "KOSPI",
        "price": price,
        "day_volume": 1000,
        "timestamp": now,
        "session": "2026-01-02",
        "relaxed": [rule],
        "strict": [rule],
        "indicators": {"rsi_14": 29.5},
        "partition": 0,
        "offset": next(_OFFSET),
        "received": now,
        "as_of": "2025-12-30",
        "version": "test",
        "label": "",
        **other,
    }
    sender = Sender(stack)
    sender.send(topic_of(RULES, stack.topic_prefix), [(key_of(record), json.dumps(record).encode())])
    sent = time.time()
    sender.close()
    return sent


def shares_of(stack: Settings, country: str) -> list[str]:
    rows = LakeReader(stack.lake).rows("universe", ["symbol"], [("country", "=", country), ("eligible", "=", True)])
    return sorted(f"{country}:{symbol}" for symbol in rows["symbol"].to_pylist())


def registry_of(settings: Settings) -> Registry:
    return Registry.load(settings.conf_file("indicators.json"))


def path_of(name: str) -> str:
    return "/" if name == "signals" else f"/{name}"


def row(page, share: str, rule: str):
    return page.locator(f".sg tr[data-id^='{share}:{rule}:']")


def settled(page) -> None:
    """Until the page's script has run to its end."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")


def find(page):
    """The field of the search, into which the key leads."""
    field = page.locator(".sf input").first
    field.wait_for()
    page.keyboard.press("/")
    expect(field).to_be_focused()
    return field


@pytest.mark.parametrize(
    ("name", "locale"), [*((name, "en-US") for name in PAGES), *((name, "ko-KR") for name in ("watchlists", "system"))]
)
def test_every_page_opens(open_page, name, locale):
    """On a wide screen; in Korean all of them are opened on a phone's below."""
    words = KO if locale == "ko-KR" else EN
    page = open_page(path_of(name), locale=locale, color_scheme="dark" if locale == "ko-KR" else "light")
    settled(page)
    assert page.get_by_text(words[f"page.{name}"], exact=True).first.is_visible()
    assert not page.locator("[data-testid=stException]").count()
    assert not page.get_by_text(words["error.page"]).count()
    page.wait_for_timeout(400)  # the charts' first frame
    shot(page, f"{name}-{locale[:2]}")


def test_a_signal_appears_within_a_second_and_opens_its_share(open_page, stack):
    waits = []
    page = open_page("/")
    settled(page)
    page.evaluate("window.here = true")
    for share in shares_of(stack, "KR")[5:10]:  # one stall of a machine under test says nothing of the page
        sent = fire(stack, share, "rsi_oversold", 1000.0)
        found = row(page, share, "rsi_oversold")
        found.wait_for()
        waits.append(time.time() - sent)
        if waits[-1] < 2.0:
            break
    assert min(waits) < 2.0, f"{waits} s from Kafka to the page"  # bench/dashboard.py measures
    assert page.evaluate("window.here") is True, "the page was loaded again"
    assert EN["rule.rsi_oversold"] in found.inner_text() and "$1,000" not in found.inner_text()
    rules = LiveRules.load(stack.conf / "watchlists.json", registry_of(stack))
    row_ = {"country": "KR", "symbol": share[3:], "price": 1050.0, "timestamp": int(time.time() * 1000) + 5}
    row_ |= {"day_volume": 5, "partition": 0, "offset": 1, "session": "2025-12-31", "moves": None}
    LatestPrices(connect(stack), stack, lambda: rules, "epoch").write(pa.Table.from_pylist([row_]))
    found.get_by_text("▲ 5.00%").first.wait_for()
    assert found.locator("svg polyline").count() == 1
    shot(page, "signals-live")
    found.click()
    page.wait_for_url(re.compile("/symbol"))
    page.wait_for_selector(".sc[data-panes='4']")
    assert share[3:] in page.locator("h1").inner_text()


def test_filters_leave_what_meets_them(open_page, stack):
    kr, us = shares_of(stack, "KR")[1], shares_of(stack, "US")[1]
    fire(stack, kr, "golden_cross")
    fire(stack, us, "rsi_overbought", 12.5)
    page = open_page("/")
    for share, rule in ((kr, "golden_cross"), (us, "rsi_overbought")):
        row(page, share, rule).wait_for()
    page.get_by_role("button", name="NASDAQ").click()
    row(page, kr, "golden_cross").wait_for(state="detached")
    assert "$12.50" in row(page, us, "rsi_overbought").inner_text()
    page.get_by_role("button", name="NASDAQ").click()
    page.get_by_role("radio", name=EN["side.long"]).or_(
        page.get_by_role("button", name=EN["side.long"], exact=True)
    ).first.click()
    row(page, us, "rsi_overbought").wait_for(state="detached")
    assert row(page, kr, "golden_cross").count() == 1


def test_a_share_is_found_by_keyboard(open_page, stack):
    page = open_page("/market")
    settled(page)
    field = find(page)
    field.fill("sample 0000")
    page.locator(".sf li b").first.wait_for()
    page.keyboard.press("ArrowDown")
    wanted = page.locator(".sf li.at b").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/symbol"))
    page.wait_for_selector(".sc[data-bars]")
    assert wanted in page.locator("h1").inner_text() and wanted in page.url
    assert int(page.locator(".sc").get_attribute("data-bars")) > 200


def test_the_chart_shows_what_was_traded_or_what_is_adjusted(open_page, stack):
    actions = LakeReader(stack.lake).rows("actions", ["country", "symbol", "kind"]).to_pylist()
    split = next(a for a in actions if a["kind"] != "dividend")
    share = f"{split['country']}:{split['symbol']}"
    page = open_page(f"/symbol?share={share}", ".sc[data-bars]")
    settled(page)
    before = page.locator(".sc .legend").inner_text()
    page.get_by_text(EN["symbol.raw"], exact=True).click()
    page.get_by_text(EN["symbol.log"], exact=True).click()
    page.get_by_text(EN["symbol.levels"], exact=True).click()
    settled(page)
    page.wait_for_selector(".sc[data-bars]")
    assert before and page.locator(".sc .legend").inner_text()
    page.get_by_role("tab", name=EN["symbol.actions"]).click()
    page.locator(".sg td", has_text=EN[f"kind.{split['kind']}"]).first.wait_for()
    shot(page, "symbol-split")


def test_a_threshold_is_changed_with_a_preview_a_copy_and_an_effect(open_page, stack):
    path = stack.conf / "watchlists.json"
    before = path.read_text()
    running = RulesFile(path, registry_of(stack))  # as the relay and the detection keep it
    page = open_page("/settings")
    settled(page)
    at = page.get_by_label(EN["set.at"], exact=True).first
    at.fill("33")
    at.press("Enter")
    page.get_by_text("each must be as wide as the one before").first.wait_for()
    save = page.get_by_role("button", name=EN["set.save"], exact=True)
    expect(save).to_be_disabled()
    assert path.read_text() == before
    for name, value in (("relaxed", "35"), ("watch", "37")):
        field = page.get_by_label(EN[f"set.{name}"], exact=True).first
        field.fill(value)
        field.press("Enter")
        settled(page)
    expect(save).to_be_enabled()
    save.click()
    page.get_by_text("Saved.").first.wait_for()
    shot(page, "settings-saved")
    live = next(r for r in json.loads(path.read_text())["rules"] if r["name"] == "rsi_oversold")["live"]
    assert (live["at"], live["relaxed"], live["watch"]) == (33, 35, 37)
    copies = sorted((stack.conf / "old").glob("watchlists-*.json"))
    assert copies[-1].read_text() == before
    assert running.changed() and running.rules.by_name["rsi_oversold"].at == 33, "a running job takes it up"


def test_a_condition_is_previewed_while_it_is_written(open_page, stack):
    page = open_page("/settings")
    settled(page)
    field = page.get_by_label(EN["set.when"]).first
    field.fill("rsi_14 < 101")
    field.press("Control+Enter")
    page.wait_for_function("() => /[1-9]\\d* shares match today/.test(document.body.innerText)")
    field.fill("no_such_column < 3")
    field.press("Control+Enter")
    page.locator("[data-testid=stAlert]", has_text="no_such_column").first.wait_for()
    expect(page.get_by_role("button", name=EN["set.save"], exact=True)).to_be_disabled()


def test_people_keep_their_own_lists(open_page, stack):
    shares = shares_of(stack, "KR")[:2]
    page = open_page("/watchlists")
    settled(page)
    page.get_by_role("tab", name=EN["lists.own"]).click()
    page.get_by_role("textbox", name=EN["own.name"]).fill("mine")
    area = page.get_by_role("textbox", name=EN["own.symbols"])
    area.fill("\n".join([shares[0][3:], shares[1], "NOSUCH"]))
    area.press("Control+Enter")
    page.get_by_text("NOSUCH").last.wait_for()
    page.locator(".sg:visible .code", has_text=shares[0][3:]).first.wait_for()
    page.get_by_role("button", name=EN["own.save"], exact=True).click()
    kept, end = stack.conf / "lists" / "mine.txt", time.monotonic() + _WAIT / 1000
    while not kept.is_file() and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert kept.read_text().splitlines()[0] == shares[0][3:]


# Images and links of the hostile text that became elements, in the page and in the components' shadow roots.
_ACTIVE = """() => {
  const inside = (root) =>
    [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? inside(e.shadowRoot) : [])]);
  return inside(document).filter((e) => (e.tagName === "IMG" && e.getAttribute("src") === "x")
    || String(e.href || "").startsWith("javascript:")).length;
}"""


def test_names_and_messages_from_outside_stay_text(open_page, stack):
    """The listing has a share whose name is markup; a feed sends a market that is."""
    fire(stack, "KR:0000X0", "macd_cross", market=HOSTILE)
    for path in ("/", "/symbol?share=KR:0000X0", "/system", "/symbol?share=" + "%3Cimg%20src%3Dx%20onerror%3D1%3E"):
        page = open_page(path)
        settled(page)
        page.wait_for_timeout(1200)
        assert page.evaluate("window.hacked") is None, path
        assert page.evaluate(_ACTIVE) == 0, path
    page = open_page("/")
    page.locator(".sg td", has_text="<img src=x").first.wait_for()
    shot(page, "signals-hostile")
    find(page).fill("<img")
    page.locator(".sf li span", has_text="<img src=x").first.wait_for()
    assert page.evaluate("window.hacked") is None
    page = open_page("/symbol?share=KR:0000X0")
    assert "<img" in page.locator("h1, [data-testid=stAlert]").first.inner_text()


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_in_one_direction_only(open_page, name):
    page = open_page(
        path_of(name), viewport={"width": 390, "height": 844}, locale="ko-KR", is_mobile=True, has_touch=True
    )
    settled(page)
    page.wait_for_timeout(300)
    assert not page.locator("[data-testid=stException]").count() and not page.get_by_text("Page not found").count()
    wide = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{wide} px too wide"
    shot(page, f"{name}-phone")


def test_preferences_stay_in_the_browser(open_page, stack):
    page = open_page("/", locale="ko-KR", timezone_id="Asia/Seoul")
    settled(page)
    page.get_by_text(KO["prefs.title"], exact=True).click()
    page.get_by_text("English", exact=True).click()
    page.get_by_text(EN["page.watchlists"], exact=True).first.wait_for()
    page.wait_for_function("document.cookie.includes('language.en')")
    page.reload()
    page.get_by_text(EN["page.watchlists"], exact=True).first.wait_for()
    cookie = {c["name"]: c["value"] for c in page.context.cookies()}["sise_prefs"]
    assert cookie.startswith("language.en_colours.kr_zone.KST")
    page.get_by_text(EN["prefs.title"], exact=True).click()
    page.get_by_text(EN["prefs.theme.dark"], exact=True).click()
    page.wait_for_function(
        "(e => e && getComputedStyle(e).backgroundColor === 'rgb(15, 19, 24)')(document.querySelector('.stApp'))"
    )


def test_redis_stops_and_comes_back(open_page, stack):
    """Last of those that need Redis. The page says so, keeps what it had, and goes on by itself."""
    share = shares_of(stack, "KR")[3]
    fire(stack, share, "high_52_week")
    page = open_page("/")
    row(page, share, "high_52_week").wait_for()
    stop(stack, ("redis",))
    page.get_by_text("does not answer").first.wait_for()
    assert row(page, share, "high_52_week").count() == 1 and page.get_by_text("make up").count()
    shot(page, "signals-redis-away")
    other = open_page("/market")
    settled(other)
    assert other.locator(".sm div").count() > 5
    start(stack, ("redis",))
    page.get_by_text("does not answer").first.wait_for(state="detached")
    again = shares_of(stack, "KR")[4]
    fire(stack, again, "high_52_week")
    row(page, again, "high_52_week").wait_for()


def test_a_backtest_is_asked_and_answered(open_page, stack, sample_lake):
    page = open_page("/backtest")
    settled(page)
    page.get_by_role("button", name=EN["test.run"]).click()
    page.get_by_text("Running for").first.wait_for()
    page.locator("code", has_text="rsi_14 < 30").first.wait_for(timeout=420_000)
    page.locator(".sg td", has_text="KOSPI").first.wait_for()
    shot(page, "backtest-answer")
    rows = LakeReader(stack.lake).rows("backtests", None, [("horizon", "=", 5)]).to_pandas()
    whole = rows[(rows["market"] == "ALL") & (rows["month"] == "ALL")].iloc[0]
    assert f"{whole['cases']:,}" in page.locator(".sg").first.inner_text()
