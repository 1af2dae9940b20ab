"""The viewer without a browser: words, numbers, preferences, who may come in, and what it writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from streamlit.testing.v1 import AppTest

from sise.dashboard.asks import Asks, backtest_arguments
from sise.dashboard.data import market, share
from sise.dashboard.data.lists import entries
from sise.dashboard.data.names import find
from sise.dashboard.data.system import coverage
from sise.dashboard.data.view import LakeView
from sise.dashboard.data.worth import curve, distribution, extremes
from sise.dashboard.edit import delete_list, live_rules, problems_of, read_lists, read_rules, save_list, save_rules
from sise.dashboard.formats import ago, compact, escaped, percent, price, signed
from sise.dashboard.i18n import LANGUAGES, Words, catalogue, language_of
from sise.dashboard.launch import check_access, command, providers
from sise.dashboard.live import Feed, Live
from sise.dashboard.parts import column, records
from sise.dashboard.prefs import COLOURS, Preferences
from sise.dashboard.preview import _suspects
from sise.dashboard.views import own_lists, watchlists
from sise.dashboard.views import settings as settings_page
from sise.dashboard.views import signals as signals_page
from sise.dashboard.views import symbol as symbol_page
from sise.dashboard.views.settings import setting_rows
from sise.dashboard.views.signals import filtered
from sise.dashboard.views.watchlists import csv_of
from sise.errors import ConfigError, InputError
from sise.indicators.registry import Registry
from sise.prices.factors import factors_of
from sise.settings import Settings
from sise.signals.levels import WHYS, strict_at
from sise.signals.rules import LiveRules
from tests.conftest import CONF, HERE

LIB = HERE / "lib" / "sise" / "dashboard"


# Words ----------------------------------------------------------------------------------------------------------


def used_keys() -> tuple[set[str], set[str]]:
    """(keys as they stand in the code, beginnings of keys that are put together)."""
    whole, begun = set(), set()
    for path in LIB.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        whole |= set(re.findall(r"""words\(\s*["']([a-z][\w.\- ]*)["']\s*[,)]""", text))
        begun |= set(re.findall(r"""words\(\s*f["']([a-z][\w.]*\.)\{""", text))
        begun |= set(re.findall(r"""words\(\s*["']([a-z]+\.)["'] \+""", text))
    return whole, begun


def test_both_catalogues_have_every_word_that_is_used_and_no_other():
    en, ko = catalogue("en"), catalogue("ko")
    assert list(en) == list(ko)
    whole, begun = used_keys()
    assert len(whole) > 150 and whole <= set(en), whole - set(en)
    fixed = (
        "page.",
        "topic.",
        "check.",
        "kind.",
        "why.",
        "rule.",
        "span.",
        "set.",
        "side.",
        "prefs.",
        "sys.",
        "level.",
    )
    spare = {k for k in set(en) - whole if not k.startswith((*begun, *fixed))}
    assert not spare, spare


def test_both_catalogues_fill_in_the_same_values():
    en, ko = catalogue("en"), catalogue("ko")
    for key, text in en.items():
        assert set(re.findall(r"\{(\w+)", text)) == set(re.findall(r"\{(\w+)", ko[key])), key
        assert text.strip() and ko[key].strip(), key
    korean = sum(bool(re.search("[가-힣]", text)) for text in ko.values())
    assert korean > 0.85 * len(ko)


def test_every_shipped_rule_and_reason_has_a_name():
    rules = json.loads((CONF / "watchlists.json").read_text())["rules"]
    for name in (rule["name"] for rule in rules):
        assert Words("ko").rule(name) != name
    assert Words("en").rule("one_of_my_own") == "one_of_my_own"
    for why in WHYS:
        assert f"why.{why}" in catalogue("en")
    for kind in ("split", "bonus", "rights", "reduction", "spin-off", "dividend", "unknown"):
        assert f"kind.{kind}" in catalogue("ko")


def test_a_missing_word_is_an_error():
    with pytest.raises(KeyError):
        Words("en")("no.such.word")


# Preferences, numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "locale", "zone", "expected"),
    [
        ({}, "ko-KR", "Asia/Seoul", ("ko", "kr", "KST", "system")),
        ({}, "en-US", "America/New_York", ("en", "western", "ET", "system")),
        ({}, None, None, ("en", "western", "ET", "system")),
        ({}, "de-DE", "UTC", ("en", "western", "UTC", "system")),
        ({"sise_prefs": "language.ko_theme.dark"}, "en-US", "UTC", ("ko", "western", "UTC", "dark")),
        ({"sise_prefs": "language.<script>_zone.Mars_x"}, "en-US", "UTC", ("en", "western", "UTC", "system")),
    ],
)
def test_preferences_come_from_the_browser_and_the_cookie(cookies, locale, zone, expected):
    found = Preferences.of(cookies, locale, zone)
    assert (found.language, found.colours, found.zone, found.theme) == expected
    assert Preferences.of({"sise_prefs": found.cookie}, "fr", None) == found


def test_a_moment_is_told_in_the_viewers_zone():
    at = datetime(2025, 12, 30, 6, 30, tzinfo=UTC)
    assert Preferences(zone="KST").moment(at) == "12-30 15:30 KST"
    assert Preferences(zone="ET").moment(at, seconds=True) == "12-30 01:30:00 ET"


def test_up_and_down_are_told_apart_by_lightness_or_hue_that_all_see():
    """Up and down differ in blue, which red-green blindness leaves, or clearly in lightness; and a sign says it too."""
    for palette in COLOURS.values():
        for ground in ("", "_dark"):
            a, b = ([int(palette[side + ground][i : i + 2], 16) for i in (1, 3, 5)] for side in ("up", "down"))
            assert abs(a[2] - b[2]) > 40
    assert signed(0.0123).startswith("▲") and signed(-0.0123).startswith("▼")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (price(70100, "KR", "ko"), "70,100원"),
        (price(70100, "KR"), "₩70,100"),
        (price(182.335, "US"), "$182.34"),
        (price(0.1234, "US"), "$0.1234"),
        (price(None, "KR"), "–"),
        (price(float("nan"), "US"), "–"),
        (compact(1.19e14, "KR", "ko"), "119조원"),
        (compact(4.521e11, "KR", "ko"), "4,521억원"),
        (compact(3.2e9, "US"), "$3.2B"),
        (compact(3.39e10, "US", "ko"), "339억달러"),
        (signed(0.0123), "▲ 1.23%"),
        (signed(-0.5, 0), "▼ 50%"),
        (signed(0.000001), "0.00%"),
        (signed(None), "–"),
        (percent(0.256, 0), "26%"),
        (ago(timedelta(seconds=75)), "1 min ago"),
        (ago(timedelta(days=3), "ko"), "3일 전"),
    ],
)
def test_numbers_for_people(text, expected):
    assert text == expected


def test_text_from_outside_is_no_markdown():
    hostile = "<b>x</b> [a](javascript:1) `c` $y$ :red[z]\n# head"
    safe = escaped(hostile)
    assert not re.search(r"(?<!\\)[<\[\]`$#*_:]", safe) and "\n" not in safe
    assert re.sub(r"\\(.)", r"\1", safe) == hostile.replace("\n", " ")


@pytest.mark.parametrize(
    "hostile",
    ["www.evil.example", "WWW.evil.example", "https://evil.example/x", "http://evil.example", "ann@evil.example",
     "mailto:ann@evil.example", "xmpp:ann@evil.example/x"],
)  # fmt: skip
def test_an_address_from_outside_is_no_link(hostile):
    shown = re.sub(r"\\(.)", r"\1", escaped(f"see {hostile} now"))
    link = r"(?i)https?://|www\.|[-.\w+]+@[-\w]+"  # what GFM's literal autolinks look for in the text that is left
    assert re.search(link, hostile) and not re.search(link, shown)
    assert shown.replace("\u2060", "") == f"see {hostile} now"


def test_records_say_null_for_what_is_not_known():
    rows = pd.DataFrame(
        {"country": ["KR", "US"], "symbol": ["005930", "NA"], "x": [1.0, np.nan], "d": [date(2025, 1, 2), None]}
    )
    found = records(rows, [column("x", "x", "number"), column("d", "d")])
    assert found[0] | {"id": ""} == {
        "x": 1.0, "d": "2025-01-02", "country": "KR", "symbol": "005930", "share": "KR:005930", "id": ""
    }  # fmt: skip
    assert found[1]["x"] is None and found[1]["d"] is None and found[1]["share"] == "US:NA"
    assert json.dumps(found, allow_nan=False)


# Signals ---------------------------------------------------------------------------------------------------------


def signal(number: int, rule: str = "rsi_oversold", market: str = "KOSPI", age: float = 0) -> dict:
    arrived = (datetime.now(UTC).timestamp() - age) * 1000
    return {"id": str(number), "signal_type": rule, "market": market, "arrived": arrived}


def test_filters_of_signals():
    live = Live(1, (signal(3), signal(2, "dead_cross", age=100), signal(1, "dead_cross", "NASDAQ", age=7200)))

    def ids(*args, **kwargs):
        return [s["id"] for s in filtered(live, *args, **kwargs)]

    assert ids() == ["3", "2", "1"]
    assert ids(("NASDAQ",)) == ["1"] and ids((), ("dead_cross",)) == ["2", "1"]
    assert ids((), (), 3600) == ["3", "2"] and ids((), (), 60) == ["3"]
    assert ids(side="short", short={"dead_cross"}) == ["2", "1"] and ids(side="long", short={"dead_cross"}) == ["3"]
    assert ids(most=1) == ["3"]


class FakeRedis:
    """The stream and the hashes of signals, in the answers of redis-py; ``broken``: what the next answer raises."""

    def __init__(self):
        self.stream: list[tuple[bytes, dict[bytes, bytes]]] = []
        self.hashes: dict[str, dict[str, bytes] | Exception] = {}
        self.broken: Exception | None = None
        self.asked: list[int] = []

    def fire(self, name: str, text: str | None = None, figures: dict | Exception | None = None, **more) -> None:
        entry = {"id": name, "signal_type": "dead_cross", "country": "KR", "symbol": "005930", "trigger_price": 1000}
        said = json.dumps({k: v for k, v in (entry | more).items() if v is not ...}) if text is None else text
        at = int(datetime.now(UTC).timestamp() * 1000)
        self.stream.append((f"{at}-{len(self.stream)}".encode(), {b"signal": said.encode()}))
        if isinstance(figures, dict):
            figures = {k: str(v).encode() for k, v in figures.items()}
        if figures is not None:
            self.hashes[f"sise:signal:{name}"] = figures

    def xrevrange(self, key, count):
        if self.broken:
            raise self.broken
        return self.stream[::-1][:count]

    def xread(self, streams, count, block):
        threading.Event().wait(0.01)
        if self.broken:
            raise self.broken
        place = [name for name, _ in self.stream].index(next(iter(streams.values())).encode())
        return {b"sise:signals": [self.stream[place + 1 :]]} if self.stream[place + 1 :] else {}

    def pipeline(self, transaction):
        wanted: list[list[bytes | None] | Exception] = []

        def hmget(key, *names):
            found = self.hashes.get(key, {})
            wanted.append(found if isinstance(found, Exception) else [found.get(name) for name in names])

        def execute(raise_on_error):
            assert not raise_on_error
            self.asked.append(len(wanted))
            return wanted

        return SimpleNamespace(hmget=hmget, execute=execute)

    def close(self) -> None:
        pass


@pytest.fixture
def feed(monkeypatch):
    store = FakeRedis()
    monkeypatch.setattr("sise.dashboard.live.redis.Redis.from_url", lambda *args, **kwargs: store)
    monkeypatch.setattr("sise.dashboard.live._PRICES_EVERY", 0.02)
    feed = Feed(Settings())
    yield feed, store
    if feed._thread.is_alive():
        feed.stop()


def until(feed: Feed, holds) -> Live:
    live = feed.now()
    for _ in range(2_400):
        if holds(live):
            return live
        live = feed.wait(live.version, 0.05)
    raise AssertionError(live)


BAD = ({"signal_type": ...}, {"trigger_price": ...}, {"trigger_price": "x"}, {"trigger_price": float("nan")},
       {"trigger_price": 0}, {"id": 7}, {"symbol": None}, {"signal_type": ["a"]})  # fmt: skip


def test_one_bad_entry_or_figure_leaves_the_others_on_the_page(feed, monkeypatch):
    feed, store = feed
    store.fire("good", figures={"last_price": 1100, "pnl": 0.1, "best": 0.1, "worst": 0}, market={"x": float("inf")})
    store.hashes["sise:price:KR:005930"] = {"timestamp": b"1700000000000"}
    for n, more in enumerate(BAD):
        store.fire(**{"name": f"bad{n}"} | more)
    for text in ("", "[]", "3", "{" * 3000, "[" * 100_000, '{"id": "x"}'):
        store.fire("bad", text)
    store.fire("odd", figures={"last_price": "nan", "pnl": "Infinity", "best": "abc", "worst": ""})
    store.fire("wrong", figures=TypeError("WRONGTYPE"))
    feed.start()
    live = until(feed, lambda live: live.connected)
    assert [s["id"] for s in live.signals] == ["wrong", "odd", "good"]
    for name in ("last_price", "pnl", "best", "worst"):
        assert live.signals[0][name] is live.signals[1][name] is None
    assert live.signals[2]["pnl"] == 0.1 and live.signals[2]["priced"] == 1.7e12
    assert live.signals[0]["priced"] is None, "it has no figures, so no price is theirs"
    assert json.dumps(live.signals, allow_nan=False)
    until(feed, lambda live: len(store.asked) > 3)  # nothing changed, so nothing is published
    assert feed.now().version == live.version
    monkeypatch.setattr(signals_page, "sparks", lambda view: {"KR:005930": [1.0, float("nan")]})
    here = SimpleNamespace(view=Listed(("KR", "005930", "삼성전자", 4e14)))
    rows, text = signals_page._answer(here, "test", lambda: list(live.signals), set())
    assert len(json.loads(text, parse_constant=pytest.fail)) == len(rows) == 3


def test_a_feed_that_breaks_says_so_and_goes_on(feed, caplog):
    feed, store = feed
    store.fire("1")
    feed.start()
    until(feed, lambda live: live.connected)
    store.broken = ValueError("no such answer")
    live = until(feed, lambda live: live.away)
    assert live.fault and "no such answer" in live.away and [s["id"] for s in live.signals] == ["1"]
    store.fire("2")
    store.broken = None
    live = until(feed, lambda live: live.connected)
    assert not live.away and [s["id"] for s in live.signals] == ["2", "1"]


def test_every_signal_that_is_kept_has_its_own_figures_or_none(feed):
    feed, store = feed
    for n in range(520):
        store.fire(str(n), figures={"last_price": 1100, "pnl": 0.1, "best": 0.1, "worst": 0} if n % 2 else None)
    feed.start()
    live = until(feed, lambda live: live.connected)
    assert len(live.signals) == 500 and store.asked[0] == 2 * 500  # its figures, and its share's price
    assert all(s["pnl"] == (0.1 if int(s["id"]) % 2 else None) for s in live.signals)
    store.fire("new", figures={"last_price": 1000, "pnl": 0, "best": 0, "worst": 0})
    live = until(feed, lambda live: live.signals[0]["id"] == "new")
    assert live.signals[0]["pnl"] == 0.0 and len(live.signals) == 500


def test_the_csv_opens_in_a_spreadsheet_and_runs_nothing():
    rows = pd.DataFrame(
        [{"date": date(2025, 1, 2), "country": "KR", "market": "KOSPI", "list": "x", "rank": 1, "symbol": "005930",
          "name": "=cmd|'/c calc'!A0", "since": date(2025, 1, 2), "figures": {"rsi_14": 29.5, "close": 1.0}}]
    )  # fmt: skip
    text = csv_of(rows)
    assert text.startswith(b"\xef\xbb\xbf") and b",'=cmd" in text and b"29.5" in text and b"005930" in text


def outcomes(*returns: float) -> pd.DataFrame:
    days = [date(2025, 1, 2 + n // 2) for n in range(len(returns))]
    return pd.DataFrame(
        {"signal_id": [str(n) for n in range(len(returns))], "session": days, "return": returns,
         "market_return": 0.01, "excess": [r - 0.01 for r in returns]}
    )  # fmt: skip


def test_the_figures_of_outcomes_count_their_cases():
    found = distribution(outcomes(0.1, -0.1, 0.2, 0.0))
    assert found["cases"] == 4 and found["hit_rate"] == 0.5 and found["mean"] == pytest.approx(0.05)
    assert found["median"] == pytest.approx(0.05) and found["excess"] == pytest.approx(0.04)
    assert distribution(outcomes()) == {"cases": 0}
    assert np.isnan(distribution(outcomes(0.1))["spread"])


def test_the_equity_curve_stakes_the_same_each_session():
    by = curve(outcomes(0.1, -0.1, 0.2, 0.0))
    assert by["cases"].tolist() == [2, 2] and by["equity"].tolist() == pytest.approx([0.0, 0.1])
    assert by["market_equity"].tolist() == pytest.approx([0.01, 0.02])
    assert curve(outcomes()).empty


def test_no_signal_is_among_the_best_and_the_worst():
    best, worst = extremes(outcomes(0.1, -0.1, 0.2), 10)
    assert best["return"].tolist() == [0.2] and worst["return"].tolist() == [-0.1]


# The lake --------------------------------------------------------------------------------------------------------


def lake_of(folder: Path, **tables: list[dict]) -> LakeView:
    """A lake of these rows, with no more columns than the reader asks for."""
    for name, rows in tables.items():
        write_deltalake(str(folder / "lake" / name), pa.Table.from_pylist(rows))
    return LakeView(Settings(lake=str(folder / "lake")), fresh=0.0)


def test_of_what_is_built_only_the_newest_version_is_kept():
    view = LakeView(Settings(lake="nowhere"), keep=50)
    now = {"prices": 0}
    view.version = now.__getitem__  # type: ignore[method-assign]
    for version in range(500):
        now["prices"] = version
        for key in ("a", "b"):
            assert view.memo(["prices"], key, lambda v=version: v) == version
            assert view.memo(["prices"], key, lambda: pytest.fail("built twice")) == version
    assert sum(map(len, view._kept.values())) == 2
    for n in range(30):
        view.memo(["prices"], ("history", n), lambda n=n: n, 5)
    assert [len(shelf) for shelf in view._kept.values()] == [2, 5]
    for n in range(300):
        view.memo(["prices"], n, lambda n=n: n)
    assert [len(shelf) for shelf in view._kept.values()] == [50, 5]


def test_a_lake_that_was_made_anew_is_another_one(tmp_path):
    view = lake_of(tmp_path, indices=[{"index": "KOSPI", "close": 1.0}])
    assert view.frame("indices")["close"].tolist() == [1.0] and view.version("indices") == 0
    shutil.rmtree(tmp_path / "lake")
    assert view.frame("indices").empty and view.version("indices") == -1
    lake_of(tmp_path, indices=[{"index": "KOSPI", "close": 2.0}])
    assert view.frame("indices")["close"].tolist() == [2.0] and view.version("indices") == 0
    shutil.rmtree(tmp_path / "lake")
    lake_of(tmp_path, indices=[{"index": "KOSPI", "close": 3.0}])
    write_deltalake(str(tmp_path / "lake" / "indices"), pa.table({"index": ["X"], "close": [4.0]}), mode="append")
    assert sorted(view.frame("indices")["close"]) == [3.0, 4.0], "not the first one's rows with the second's"


def test_since_when_goes_back_over_each_session_in_a_row(tmp_path):
    rng = np.random.default_rng(5)
    days = {"KR": [date(2024, 1, 1 + n) for n in range(12)], "US": [date(2024, 1, 3 + 2 * n) for n in range(6)]}
    rows, there = [], {}
    for country, sessions_ in days.items():
        for at, day in enumerate(sessions_):
            for name in ("a", "b"):
                for symbol in ("S1", "S2", "S3"):
                    if rng.random() < 0.7 or symbol == "S1":  # S1 is always there: no session is without an entry
                        before = there.get((country, name, symbol, at - 1))
                        there[country, name, symbol, at] = before or day
                        row = {"country": country, "date": day, "market": country, "list": name, "symbol": symbol}
                        rows.append(row | {"name": "", "rank": 1, "figures": [("close", float(at))]})
    kinds = {"figures": pa.map_(pa.string(), pa.float64())}
    rng.shuffle(rows)
    table = pa.table({c: pa.array([r[c] for r in rows], kinds.get(c)) for c in rows[0]})
    write_deltalake(str(tmp_path / "lake" / "watchlist"), table)
    view = LakeView(Settings(lake=str(tmp_path / "lake")))
    for until in (None, date(2024, 1, 7), date(2024, 1, 2)):
        last = {c: [d for d in all_ if until is None or d <= until] for c, all_ in days.items()}
        found = entries(view, None, until)
        wanted = {
            (c, name, symbol): since
            for (c, name, symbol, at), since in there.items()
            if last[c] and at == len(last[c]) - 1
        }
        keys = zip(found["country"], found["list"], found["symbol"], strict=True)
        assert dict(zip(keys, found["since"], strict=True)) == wanted
        assert all(row["figures"] == {"close": float(len(last[row["country"]]) - 1)} for _, row in found.iterrows())


def test_what_could_not_be_built_leaves_nothing_behind():
    view = LakeView(Settings(lake="nowhere"))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            view.memo([], "x", lambda: 1 / 0)
    assert not view._building and view.memo([], "x", lambda: 3) == 3


def test_a_market_without_bars_shows_as_not_covered(tmp_path, calendars):
    listed = {"valid_from": date(2025, 1, 2), "name": "x", "market_cap": 1.0, "listed_shares": 1, "active": True}
    new, old = date(2025, 1, 8), date(2025, 1, 6)
    view = lake_of(
        tmp_path,
        symbols=[
            listed | {"country": c, "market": m, "symbol": f"{m}{n}", "active": n < 2}
            for c, m in (("KR", "KOSPI"), ("KR", "KOSDAQ"), ("US", "NYSE"))
            for n in range(3)
        ],
        prices=[
            {"country": "KR", "market": m, "symbol": f"{m}{n}", "date": day}
            for m, day in (("KOSPI", old), ("KOSPI", new), ("KOSDAQ", old))
            for n in range(2)
        ],
        live_state=[{"country": "KR", "as_of": new, "valid_session": date(2025, 1, 9)}],
    )
    rows = coverage(view, calendars, dict.fromkeys(("KR", "US"), new)).set_index("market")
    assert rows["coverage"].to_dict() == {"KOSPI": 1.0, "KOSDAQ": 0.0, "NYSE": 0.0}
    assert rows["last"].to_dict() == {"KOSPI": new, "KOSDAQ": old, "NYSE": None}
    assert rows["bars"].tolist() == [0, 2, 0] and set(rows["expected"]) == {2}
    assert rows.loc["KOSDAQ", "sessions_behind"] == 2 and (rows["coverage"] < 0.8).sum() == 2


def test_a_jump_among_its_last_bars_makes_a_share_suspect(tmp_path, calendars):
    """Bars, not sessions: H was halted for two of them. Days without trade carry no jump."""
    days = calendars["KR"].between(date(2025, 1, 2), date(2025, 1, 10))
    rows = [
        {"country": "KR", "symbol": s, "date": day, "volume": v, "flags": ["jump"] if n == jump else ["x"]}
        for s, jump, volumes in (("J", 2, [1] * 7), ("H", 1, [1, 1, 0, 0, 1, 1, 1]), ("N", 9, [1] * 7))
        for n, (day, v) in enumerate(zip(days, volumes, strict=True))
    ]
    view = lake_of(tmp_path, prices=rows)
    found = [_suspects(view, calendars["KR"], "KR", day, 3) for day in days]
    assert found == [set(), {"H"}, {"J", "H"}, {"J", "H"}, {"J", "H"}, {"H"}, set()]


def bars_of(country: str, market_: str, last: date, days: int, **columns) -> list[dict]:
    base = {"country": country, "market": market_, "symbol": market_, "return_1": 0.01, "rsi_14": 50.0, "sma_200": 1.0}
    rows = []
    for n in range(days):
        rows.append(base | {"date": last - timedelta(days=days - 1 - n)} | {k: v[n] for k, v in columns.items()})
    return rows


def test_a_new_high_is_one_beyond_the_bar_before(tmp_path):
    """A close is nearly always below the day's own high, which is in the window."""
    high, low = [None, 10.0, 10.0, 11.0, 11.0, 11.0], [None, 5.0, 4.0, 4.0, 4.0, 3.0]
    kr, us = date(2025, 12, 30), date(2025, 3, 3)
    view = lake_of(
        tmp_path,
        indicators=[
            *bars_of("KR", "KOSPI", kr, 6, close=[9.0] * 6, high_252=high, low_252=low),
            *bars_of("US", "NYSE", us, 6, close=[9.0] * 6, high_252=high, low_252=low),
        ],
        live_state=[{"country": "KR", "as_of": kr}, {"country": "US", "as_of": us}],
    )
    for name, last in (("KOSPI", kr), ("NYSE", us)):  # one country's data may be older than the window of the other
        by = market.breadth(view, name)
        assert by["date"].iloc[-1] == last and len(by) == 5
        assert by["new_highs"].tolist() == [0, 0, 1, 0, 0] and by["new_lows"].tolist() == [0, 1, 0, 0, 1]
        assert by["warm_252"].tolist() == [0, 1, 1, 1, 1] and by["traded"].tolist() == [1] * 5


def test_the_preview_of_a_live_rule_counts_what_each_share_says_for_itself(tmp_path, registry):
    rows = [
        {"country": "KR", "symbol": f"{n:06}", "close": 100.0, "rsi_14_gain": 1.0, "rsi_14_loss": float(n),
         "high_252": 100.0 + n, "high_252_max": 100.0 + n}
        for n in range(1, 6)
    ]  # fmt: skip
    rows += [
        rows[0] | {"symbol": "cold", "rsi_14_gain": None, "high_252": None, "high_252_max": None},
        rows[0] | {"close": None},
    ]
    view = lake_of(tmp_path, live_state=rows)

    def rule(measure: str, fires: str, at: float):
        entry = {"name": "mine", "direction": "long", "live": {"measure": measure, "fires": fires, "at": at}}
        return live_rules([entry], registry).by_name["mine"]

    for measure, fires, at in (("rsi_14", "<", 30), ("rsi_14", "<", 20), ("price / prev_high_252", ">", 0.975)):
        mine = rule(measure, fires, at)
        alone = [bool(strict_at(registry, mine, row, row["close"])) for row in rows if row["close"] is not None]
        assert share.holding(view, registry, mine) == (sum(alone), 6) and 0 < sum(alone) < 6
    for measure in ("day_volume / session_share", "volume_ratio_20", "sma_20"):
        assert share.holding(view, registry, rule(measure, ">", 1)) is None, measure


# Shares ----------------------------------------------------------------------------------------------------------


class Listed:
    """A view that knows a listing and nothing else."""

    def __init__(self, *shares: tuple[str, str, str, float]):
        self.rows = pd.DataFrame(
            [
                {"country": c, "symbol": s, "name": n, "market_cap": m, "valid_from": date(2025, 1, 2), "active": True}
                for c, s, n, m in shares
            ]
        )

    def exists(self, name: str) -> bool:
        return name == "symbols"

    def read(self, name: str, columns):
        return self.rows.assign(market="KOSPI", listed_shares=None)

    def memo(self, tables, key, build):
        return build()


def test_a_share_is_found_by_code_name_and_korean_initials():
    view = Listed(
        ("KR", "005930", "삼성전자", 4e14), ("KR", "005935", "삼성전자우", 5e13), ("KR", "000660", "SK하이닉스", 1e14),
        ("US", "AAPL", "Apple Inc.", 3e12), ("US", "NA", "Nano Labs", 1e8), ("KR", "207940", "삼성바이오로직스", 7e13),
    )  # fmt: skip

    def codes(text):
        return list(find(view, text)["symbol"])

    assert codes("005930") == ["005930"] and codes("00593") == ["005930", "005935"]
    assert codes("삼성")[0] == "005930" and set(codes("삼성")) == {"005930", "005935", "207940"}
    assert codes("ㅅㅅㅈㅈ") == ["005930", "005935"] and codes("하이닉") == ["000660"]
    assert codes("apple") == ["AAPL"] and codes("na")[0] == "NA" and codes("us:aapl") == ["AAPL"]
    assert codes("zzz") == [] and codes(".*") == [] and len(find(view, "")) == 6


def test_a_lake_without_a_listing_finds_nothing(tmp_path):
    assert find(LakeView(Settings(lake=str(tmp_path))), "AAPL").empty


@pytest.mark.parametrize(
    ("country", "last", "digits"),
    [("US", 182.3351, 2), ("US", 741_250.55, 2), ("US", 0.51, 4), ("KR", 70_100.0, 0), ("KR", 55.5, 2)],
)
def test_the_chart_draws_cheap_prices_as_they_are(country, last, digits):
    closes = [0.0043751234, 0.00441, last]
    bars = pd.DataFrame({"date": [date(2025, 1, d) for d in (2, 3, 6)], "volume": 1.0, "change": [np.nan, np.inf, 0.1]})
    bars = bars.assign(**dict.fromkeys(("open", "high", "low", "close", "sma_20"), closes))
    data = symbol_page.chart_data(SimpleNamespace(words=Words("en")), country, bars, False)
    for column_ in (data["c"], data["o"], data["lines"][0]["values"]):
        assert column_ == [0.00437512, 0.00441, pytest.approx(last, rel=1e-5 if last < 1000 else 1e-9)]
    assert data["digits"] == digits and data["change"] == [None, None, 0.1]
    assert json.dumps(data, allow_nan=False)


def test_marks_say_what_was_stored_and_what_is_not_known(monkeypatch):
    day = date(2025, 1, 2)
    archived = pd.DataFrame({"session": day, "signal_type": ["a", "a", "b"], "direction": ["short", np.nan, "long"]})
    known = {"ex_date": day, "factor": np.nan, "amount": None, "confirmed": True}
    rows = [known | {"kind": "unknown", "confirmed": False}, known | {"kind": "split", "factor": 0.02},
            known | {"kind": "split"}, known | {"kind": "dividend"}]  # fmt: skip
    monkeypatch.setattr(symbol_page, "fired", lambda *args: archived)
    monkeypatch.setattr(symbol_page, "actions", lambda *args: pd.DataFrame(rows))
    rules = SimpleNamespace(rules=[SimpleNamespace(name="b", direction="short")])
    here = SimpleNamespace(words=Words("en"), view=None, shared=SimpleNamespace(rules=rules))
    found = [(mark["kind"], mark["label"]) for mark in symbol_page.marks(here, "US", "X")]
    assert found[:3] == [("short", "a"), ("long", "a"), ("long", "b")]
    assert [label for _, label in found[3:]] == ["Unknown (unconfirmed)", "Split ×0.02", "Split", "D"]


def test_factors_of_what_a_bar_lacks_and_has():
    days = [date(2025, 1, d) for d in (2, 3, 6)]
    split = {"ex_date": days[1], "kind": "split", "factor": 0.02, "confirmed": True, "applied_by_source": None}
    lacking, applied = factors_of(days, days, [split])
    assert lacking.tolist() == [0.02, 1, 1] and applied.tolist() == [1, 1, 1]
    lacking, applied = factors_of(days, [days[2]] * 3, [split])
    assert lacking.tolist() == [1, 1, 1] and applied.tolist() == [0.02, 1, 1]
    told = split | {"applied_by_source": False}
    assert factors_of(days, [days[2]] * 3, [told])[0].tolist() == [0.02, 1, 1]
    for other in (split | {"confirmed": False}, split | {"kind": "dividend"}, split | {"factor": None}):
        assert factors_of(days, days, [other])[0].tolist() == [1, 1, 1]


# Who may come in -------------------------------------------------------------------------------------------------

OIDC = """[auth]
redirect_uri = "https://sise.example/oauth2callback"
cookie_secret = "x"
client_id = "y"
client_secret = "z"
server_metadata_url = "https://id.example/.well-known/openid-configuration"
"""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_are_refused_without_authentication(host, tmp_path):
    secrets = tmp_path / "secrets.toml"
    with pytest.raises(ConfigError, match="nobody asks who they are"):
        check_access(host, Settings(), [secrets])
    secrets.write_text(OIDC.replace('client_secret = "z"\n', ""))
    with pytest.raises(ConfigError):
        check_access(host, Settings(), [secrets])
    secrets.write_text(OIDC)
    assert check_access(host, Settings(), [secrets]) == "oidc"
    secrets.unlink()
    assert check_access(host, Settings(dashboard_proxy="nginx at sise.example"), [secrets]) == "proxy"


def test_each_provider_is_called_as_streamlit_calls_it(tmp_path):
    home, here = tmp_path / "home.toml", tmp_path / "secrets.toml"
    shared, own = OIDC.split("client_id")[0], "client_id" + OIDC.split("client_id")[1]
    named = f"{shared}[auth.google]\n{own}[auth.my_own]\n{own}[auth.half]\nclient_id = 'x'\n"
    for text, expected in (
        (OIDC, ["default"]),
        (named, ["google"]),
        (f"{OIDC}[auth.google]\n{own}", ["default", "google"]),
        (f"[auth]\n[auth.google]\n{OIDC.partition(chr(10))[2]}", []),  # what all share stands in [auth]
        ("auth = 3", []),
    ):
        here.write_text(text)
        assert providers([here]) == expected, text
    home.write_text(OIDC)
    here.write_text("[auth]\ncookie_secret = 'x'\n")
    assert providers([home, here]) == [] and providers([here, home]) == ["default"]


def login_page(settings: Settings) -> AppTest:
    def script(settings):
        import streamlit as st

        from sise.dashboard.i18n import Words
        from sise.dashboard.login import let_in

        st.markdown("inside" if let_in(Words("en"), settings) else "outside")

    return AppTest.from_function(script, args=(settings,), default_timeout=120).run()


@pytest.mark.parametrize(
    ("address", "said"), [(None, "outside"), ("0.0.0.0", "outside"), ("127.0.0.1", "inside"), ("::1", "inside")]
)
def test_without_the_launcher_the_pages_look_themselves_at_whom_they_let_in(monkeypatch, tmp_path, address, said):
    monkeypatch.delenv("SISE_DASHBOARD_GUARD", raising=False)
    monkeypatch.setattr("sise.dashboard.login.secrets_files", lambda: [tmp_path / "secrets.toml"])
    monkeypatch.setattr("sise.dashboard.login.st.get_option", lambda name: address)
    page = login_page(Settings())
    assert page.markdown[-1].value == said and bool(page.error) == (said == "outside")
    if page.error:
        assert "SISE\\_DASHBOARD\\_PROXY" in page.error[0].value
    assert login_page(Settings(dashboard_proxy="nginx")).markdown[-1].value == "inside"


def test_each_provider_has_its_button(monkeypatch, tmp_path):
    secrets, asked = tmp_path / "secrets.toml", []
    own = OIDC.replace("[auth]\n", "")
    secrets.write_text(f"{OIDC}[auth.google]\n{own}")
    monkeypatch.setenv("SISE_DASHBOARD_GUARD", "oidc")
    monkeypatch.setattr("sise.dashboard.login.secrets_files", lambda: [secrets])
    monkeypatch.setattr("sise.dashboard.login.st.user", SimpleNamespace(is_logged_in=False))
    monkeypatch.setattr("sise.dashboard.login.st.login", asked.append)
    page = login_page(Settings())
    assert [b.label for b in page.button] == ["Log in", "Log in with google"] and page.markdown[-1].value == "outside"
    for button in ("Log in", "Log in with google"):
        pressed(page, button)
    assert asked == ["default", "google"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_none(host, tmp_path):
    assert check_access(host, Settings(), [tmp_path / "none"]) == "loopback"


def test_the_command_line_refuses_and_says_what_to_do(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sise.cli", "dashboard", "--host", "0.0.0.0", "--headless"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(HERE / "lib")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "SISE_DASHBOARD_PROXY" in done.stderr and "127.0.0.1" in done.stderr


def test_streamlit_shows_no_details_of_errors_and_sends_no_statistics():
    said = command("127.0.0.1", 8501, True)
    assert {"--server.address=127.0.0.1", "--client.showErrorDetails=none", "--browser.gatherUsageStats=false"} <= set(
        said
    )


def test_no_page_puts_data_into_html():
    for path in LIB.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "unsafe_allow" not in text, path
        assert len(re.findall(r"st\.html\(", text)) == (1 if path.name == "app.py" else 0), path
    for path in (LIB / "static").glob("*.js"):
        assert "hour12" not in path.read_text(), f"{path}: hour12: false may write 24:03 at midnight"
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|outerHTML", path.read_text()), path
        assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text()), f"{path} reaches out"


# What it writes --------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path) -> tuple[Settings, Registry]:
    shutil.copytree(CONF, tmp_path / "conf")
    settings = Settings(conf=tmp_path / "conf", local=tmp_path / "local")
    return settings, Registry.load(settings.conf_file("indicators.json"))


def test_rules_are_written_whole_with_a_copy_and_load_again(here):
    settings, registry = here
    before = read_rules(settings)
    old = before.path.read_bytes()
    rules = [r | {"live": r["live"] | {"at": 29}} if r["name"] == "rsi_oversold" else r for r in before.rules]
    kept = save_rules(before, rules, settings, registry)
    assert kept.read_bytes() == old and kept.parent == settings.conf / "old"
    assert read_rules(settings).rules == rules
    assert LiveRules.load(before.path, registry).by_name["rsi_oversold"].at == 29
    assert not list(settings.conf.glob(".watchlists*")), "no part is left"
    assert max(len(line) for line in before.path.read_text().splitlines()) < 200


def test_writing_what_was_read_changes_only_the_layout(here):
    settings, registry = here
    before = read_rules(settings)
    save_rules(before, before.rules, settings, registry)
    assert read_rules(settings).content == before.content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"when": 3}, "texts"),
        ({"name": "Bad Name"}, "small letters"),
        ({"rank_by": "rsi_14"}, "asc or desc"),
        ({"top": -1}, "1 or more"),
        ({"live": {"measure": "no_such", "fires": "<", "at": 1}}, "no_such"),
        ({"live": {"measure": "__import__('os')", "fires": "<", "at": 1}}, "understood"),
        ({"live": {"measure": "rsi_14", "fires": "<", "at": 30, "relaxed": 20}}, "wide"),
        ({"direction": "sideways"}, "direction"),
        ({"extra": 1}, "unknown entry"),
    ],
)
def test_what_the_jobs_would_refuse_is_not_written(here, change, words):
    settings, registry = here
    before = read_rules(settings)
    rules = [before.rules[0] | change, *before.rules[1:]]
    assert any(words in problem for problem in problems_of(rules, settings, registry))
    with pytest.raises(ConfigError):
        save_rules(before, rules, settings, registry)
    assert read_rules(settings).content == before.content


def test_a_name_that_another_rule_has_is_refused_and_said_once(here):
    settings, registry = here
    rules = read_rules(settings).rules
    tick = next(rule for rule in rules if rule["name"] == "volume_surge")
    for twin in (tick, {"name": "volume_surge", "when": "close > 1"}):
        assert problems_of([*rules, twin], settings, registry) == ["rule volume_surge: named twice"]


def test_two_people_do_not_overwrite_each_other(here):
    settings, registry = here
    first, second = read_rules(settings), read_rules(settings)
    save_rules(first, first.rules[:-1], settings, registry)
    with pytest.raises(InputError, match="somebody else"):
        save_rules(second, second.rules[1:], settings, registry)
    assert read_rules(settings).rules == first.rules[:-1]


def test_a_reader_never_sees_half_a_file(here):
    settings, registry = here
    path, stop, broken = settings.conf / "watchlists.json", threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                json.loads(path.read_text())
            except ValueError as problem:
                broken.append(problem)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(40):
        file = read_rules(settings)
        save_rules(file, file.rules[::-1], settings, registry)
    stop.set()
    reader.join()
    assert not broken and len(list((settings.conf / "old").iterdir())) == 40


def test_own_lists_are_checked_and_kept(here):
    settings, _ = here
    assert save_list(settings, "mine", "005930 # Samsung\nKR:000660\n\nus:AAPL\n") == ["005930", "KR:000660", "US:AAPL"]
    assert "# Samsung" in read_lists(settings)["mine"].text
    (settings.conf / "lists" / "windows.txt").write_bytes("005930 # 삼성전자\n".encode("cp949"))
    assert "삼성전자" in read_lists(settings)["windows"].text
    (settings.conf / "lists" / "windows.txt").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match=r"windows\.txt is not text: save it as UTF-8"):
        read_lists(settings)
    (settings.conf / "lists" / "windows.txt").unlink()
    with pytest.raises(ConfigError, match=r"mine.txt:2: 'not a symbol!'"):
        save_list(settings, "mine", "005930\nnot a symbol!")
    for bad in ("../../etc/passwd", "Mine", "", "a/b", "x" * 60):
        with pytest.raises(InputError):
            save_list(settings, bad, "005930")
    with pytest.raises(InputError, match="name of a rule"):
        save_list(settings, "rsi_oversold", "005930")
    kept = delete_list(settings, "mine")
    assert "mine" not in read_lists(settings) and "Samsung" in kept.read_text()


def test_two_people_do_not_overwrite_each_others_lists(here):
    settings, _ = here
    save_list(settings, "mine", "005930")
    with pytest.raises(InputError, match="already a list mine"):
        save_list(settings, "mine", "000660")
    stamp = read_lists(settings)["mine"].stamp
    save_list(settings, "mine", "000660", stamp)
    with pytest.raises(InputError, match="changed by somebody else"):
        save_list(settings, "mine", "035420", stamp)
    assert read_lists(settings)["mine"].text == "000660\n"
    delete_list(settings, "mine")
    with pytest.raises(InputError, match="deleted by somebody else"):
        save_list(settings, "mine", "035420", stamp)
    for name in ("mine", "../watchlists", ""):
        with pytest.raises(InputError, match="there is no list"):
            delete_list(settings, name)


def test_the_stamp_of_the_rules_is_older_than_their_text(here, monkeypatch):
    """A change between the two is then refused when the rules are saved, and not overwritten."""
    settings, registry = here
    path, real, written = settings.conf / "watchlists.json", Path.read_text, []

    def read_text(self, *args, **kwargs):
        text = real(self, *args, **kwargs)
        if self == path and not written:
            written.append(path.write_text(text + "\n"))
        return text

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(InputError, match="somebody else"):
        save_rules(read_rules(settings), json.loads(real(path))["rules"], settings, registry)


def page_of(draw: str, settings: Settings, registry: Registry | None = None, **more) -> AppTest:
    """One viewer's run of a function of the views, by its dotted name, without what the browser draws."""

    def script(draw, here):
        import importlib

        module, _, name = draw.rpartition(".")
        getattr(importlib.import_module(f"sise.dashboard.views.{module}"), name)(here)

    shared = SimpleNamespace(settings=settings, registry=registry, **more)
    here = SimpleNamespace(words=Words("en"), settings=settings, shared=shared, prefs=Preferences(), view=None)
    page = AppTest.from_function(script, args=(draw, here), default_timeout=120).run()
    assert not page.exception, page.exception
    return page


def pressed(page: AppTest, label: str) -> AppTest:
    next(b for b in page.button if b.label == label).click().run()
    assert not page.exception, page.exception
    return page


def test_a_press_on_a_list_that_is_gone_deletes_no_other(here, monkeypatch):
    settings, _ = here
    monkeypatch.setattr(own_lists, "_preview", lambda here, text: None)
    save_list(settings, "alpha", "005930")
    save_list(settings, "beta", "000660")
    page = page_of("own_lists.show_own", settings)
    page.selectbox(key="o-list").select("beta").run()
    delete_list(settings, "beta")
    pressed(page, catalogue("en")["own.delete"])
    assert list(read_lists(settings)) == ["alpha"] and "beta" in page.warning[0].value
    pressed(page, catalogue("en")["own.delete"])
    assert not read_lists(settings) and not page.warning


def test_what_is_typed_into_a_list_is_not_lost_without_a_word(here, monkeypatch):
    settings, _ = here
    monkeypatch.setattr(own_lists, "_preview", lambda here, text: None)
    save_list(settings, "alpha", "005930")
    page = page_of("own_lists.show_own", settings)
    page.text_area[0].input("035420").run()
    save_list(settings, "alpha", "000660", read_lists(settings)["alpha"].stamp)
    pressed(page, catalogue("en")["own.save"])
    assert page.text_area[0].value == "035420" and "alpha" in page.warning[0].value
    assert "changed by somebody else" in page.error[0].value and read_lists(settings)["alpha"].text == "000660\n"
    pressed(page, catalogue("en")["edit.reload"])
    assert page.text_area[0].value == "000660\n" and not page.warning
    page.text_area[0].input("035720").run()
    pressed(page, catalogue("en")["own.save"])
    assert read_lists(settings)["alpha"].text == "035720\n" and not page.warning and not page.error


def test_a_long_list_is_shown_in_parts_with_every_level_and_then_rests(monkeypatch):
    asked, drawn, timers, budget = [], [], [], [3]

    def some_levels(view, registry, rules, shares, seconds):
        asked.append(len(shares))
        budget[0] -= 1
        return {share_: [] for share_ in shares}, budget[0] <= 0

    monkeypatch.setattr(watchlists, "levels_of_many", some_levels)
    monkeypatch.setattr(watchlists, "grid", lambda here, columns, rows, *args, **kwargs: drawn.append(len(rows)))
    real = watchlists.st.fragment
    monkeypatch.setattr(watchlists.st, "fragment", lambda f, run_every: timers.append(run_every) or real(f))
    count = 450
    rows = pd.DataFrame({"country": "KR", "symbol": [f"{n:06}" for n in range(count)], "market": "KOSPI", "name": "x"})
    day = date(2025, 3, 4)
    rows = rows.assign(rank=range(count), figures=[{"close": 1.0}] * count, since=date(2025, 1, 2), date=day)
    monkeypatch.setattr(watchlists, "last_session", lambda view, country: day)
    shared = SimpleNamespace(registry=None, rules=SimpleNamespace(rules=[]))
    here = SimpleNamespace(words=Words("en"), view=None, shared=shared)

    def script(here, rows):
        from sise.dashboard.views.watchlists import _entries

        _entries(here, rows, "mine")

    page = AppTest.from_function(script, args=(here, rows), default_timeout=120).run()
    assert not page.exception and timers == [2.0] and drawn == [200], "levels are still missing"
    page.run()
    assert timers == [2.0] and drawn == [200, 200], "complete: no timer"
    assert "1–200 of 450" in page.selectbox[0].options[0]
    page.selectbox[0].select_index(2).run()
    assert drawn[-1] == asked[-1] == 50 and not page.exception


def test_what_is_typed_into_a_rule_is_not_lost_without_a_word(here, monkeypatch):
    settings, registry = here
    monkeypatch.setattr(settings_page, "_preview", lambda here, before, entry: None)
    page = page_of("settings._rules", settings, registry)
    about = next(t for t in page.text_input if t.label == catalogue("en")["set.about"])
    about.input("mine").run()
    file = read_rules(settings)
    save_rules(file, [file.rules[0] | {"about": "theirs"}, *file.rules[1:]], settings, registry)
    pressed(page, catalogue("en")["set.save"])
    about = next(t for t in page.text_input if t.label == catalogue("en")["set.about"])
    assert about.value == "mine" and page.warning and "somebody else" in page.error[0].value
    pressed(page, catalogue("en")["edit.reload"])
    about = next(t for t in page.text_input if t.label == catalogue("en")["set.about"])
    assert about.value == "theirs" and not page.warning and read_rules(settings).rules[0]["about"] == "theirs"


def test_a_requirement_that_is_emptied_is_gone(here, monkeypatch):
    settings, registry = here
    monkeypatch.setattr(settings_page, "_preview", lambda here, before, entry: None)
    page = page_of("settings._rules", settings, registry, asks=SimpleNamespace(judge=lambda rules: None))
    page.selectbox(key="set-rule").select("macd_cross").run()
    next(t for t in page.text_input if t.label == catalogue("en")["set.requires"]).input("").run()
    pressed(page, catalogue("en")["set.save"])
    assert not page.error and "requires" not in read_rules(settings).rules[4]["live"]
    assert LiveRules.load(settings.conf_file("watchlists.json"), registry).by_name["macd_cross"].requires == ""


def test_secrets_are_never_shown():
    settings = Settings(redis_url="redis://me:hunter2@h:1/0", postgres_url="postgresql://me:hunter2@h/db")
    rows = {row["variable"]: row["value"] for row in setting_rows(settings, "hidden")}
    assert rows["SISE_REDIS_URL"] == rows["SISE_POSTGRES_URL"] == "hidden" and "hunter2" not in str(rows)
    assert rows["SISE_KRW_PER_USD"] == "1400"


# Questions to Spark ----------------------------------------------------------------------------------------------


def test_a_rule_that_is_written_cannot_become_an_option():
    said = backtest_arguments(None, "--rule x; rm -rf /", "long", "2025-01-02", None, ["KOSPI", "NASDAQ"], True)
    assert said == [
        "--when=--rule x; rm -rf /",
        "--direction=long",
        "--start=2025-01-02",
        "--market=KOSPI,NASDAQ",
        "--every-bar",
    ]
    assert backtest_arguments("golden_cross", None, None, None, None, [], False) == ["--rule=golden_cross"]
    with pytest.raises(InputError):
        backtest_arguments(None, "  ", None, None, None, [], False)


def asks_with(tmp_path: Path, script: str) -> Asks:
    program = tmp_path / "spark-submit.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Asks(Settings(local=tmp_path / "local"), tmp_path)


def wait_for(asks: Asks, number: int):
    for _ in range(2_400):
        if not asks.get(number).running:
            return asks.get(number)
        threading.Event().wait(0.05)
    raise AssertionError("still running")


def test_one_question_at_a_time_and_its_answer(tmp_path):
    asks = asks_with(
        tmp_path,
        f'echo "x: half" >&2; read line; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; '
        'echo "{\\"error\\": null, \\"details\\": {\\"n\\": 3}}"',
    )
    first = asks.start("backtest_rule", ["--rule=x"])
    with pytest.raises(InputError, match="wait for it"):
        asks.start("backtest_rule", ["--rule=y"])
    (tmp_path / "go").touch()
    done = wait_for(asks, first.number)
    assert done.record == {"error": None, "details": {"n": 3}} and not done.error and done.said == ("x: half",)
    assert asks.latest() == done
    asks.start("backtest_rule", ["--rule=y"])


def test_a_question_that_fails_or_is_stopped_says_so(tmp_path):
    asks = asks_with(tmp_path, 'echo "{\\"error\\": \\"no rule x\\"}"; exit 1')
    assert wait_for(asks, asks.start("backtest_rule", []).number).error == "no rule x"
    asks = asks_with(tmp_path, "echo boom >&2; exit 3")
    assert "exit code 3" in wait_for(asks, asks.start("backtest_rule", []).number).error
    asks = asks_with(tmp_path, "sleep 60")
    ask = asks.start("backtest_rule", [])
    asks.cancel(ask.number)
    assert wait_for(asks, ask.number).error and wait_for(asks, ask.number).seconds < 10
    assert language_of("ko") in LANGUAGES


def test_with_oidc_only_those_who_are_named_look():
    from sise.dashboard.login import allowed

    named = Settings.from_env({"SISE_DASHBOARD_USERS": "Ann@example.org, bob@example.org"})
    assert allowed({"email": "ann@EXAMPLE.org"}, named) and allowed({"email": "x@y"}, Settings())
    ann = {"email": "ann@example.org"}
    assert allowed(ann | {"email_verified": True}, named) and allowed(ann | {"email_verified": "true"}, named)
    unverified = [ann | {"email_verified": said} for said in (False, "false", "False", None, "")]
    for stranger in ({}, {"email": "eve@example.org"}, *unverified):
        assert not allowed(stranger, named)
    with pytest.raises(ConfigError, match="SISE_DASHBOARD_USERS"):
        Settings.from_env({"SISE_DASHBOARD_USERS": "ann"})


def test_a_timer_of_a_page_that_was_left_changes_nothing(monkeypatch):
    """Streamlit's own names are used here: another release must not pass unseen."""
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.runtime.app_session import AppSession

    from sise.dashboard.reruns import install

    heard = []
    monkeypatch.setattr(AppSession, "request_rerun", lambda self, state: heard.append(state and state.page_script_hash))
    install()
    install()
    session = SimpleNamespace()

    def ask(page: str, timer: bool = False) -> None:
        AppSession.request_rerun(
            session, ClientState(page_script_hash=page, is_auto_rerun=timer, fragment_id="f" if timer else "")
        )

    ask("")  # a browser that has just come knows no page yet
    ask("signals", timer=True)
    ask("symbol")
    ask("signals", timer=True)  # dropped: the viewer is elsewhere
    ask("symbol", timer=True)
    AppSession.request_rerun(session, None)
    assert heard == ["", "signals", "symbol", "symbol", None]


# Notebooks -------------------------------------------------------------------------------------------------------


def test_the_screen_of_the_notebook_is_of_each_countrys_last_session():
    """A session on which somebody met it last is not the last session."""
    cells = json.loads((HERE / "notebooks" / "explore.ipynb").read_text())["cells"]
    code = next(
        "".join(cell["source"])
        for cell in cells
        if "lowest_rsi" in "".join(cell["source"]) and cell["cell_type"] == "code"
    )
    rows = []
    for country, symbol, rsi in (
        ("KR", "was", [30.0] * 8 + [32.0, 34.0, 36.0, 35.0]),
        ("US", "is", [30.0] * 9 + [32.0, 34.0, 36.0]),
    ):
        for n, value in enumerate(rsi):
            bar = {"country": country, "symbol": symbol, "market": "x", "date": date(2025, 1, 1) + timedelta(days=n)}
            rows.append(bar | {"close": 1.0, "volume": 9.0, "volume_avg_20": 3.0, "rsi_14": value})
    found: dict = {"lake": SimpleNamespace(open=lambda name: SimpleNamespace(to_pyarrow_dataset=lambda: table))}
    table = pa.Table.from_pylist(rows)
    exec(code, found)
    assert found["screen"]["symbol"].tolist() == ["is"]
    exec(code.replace("date = last_session AND ", ""), found)
    assert set(found["screen"]["symbol"]) == {"was", "is"}
