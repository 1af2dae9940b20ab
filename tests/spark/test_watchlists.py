"""Rules are validated with what is valid; lists hold who they should and never who they must not."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest

from sise.errors import ConfigError, InputError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.watchlists.rules import Rule, load_lists, load_rules
from sise.watchlists.scan import scan_watchlists
from sise.watchlists.universe import session_shares
from tests.builders import action, bar, put, share
from tests.conftest import CONF

DAY, BEFORE = date(2024, 3, 5), date(2024, 3, 4)


@pytest.fixture
def conf(tmp_path):
    folder = tmp_path / "conf"
    (folder / "lists").mkdir(parents=True)
    for name in ("watchlists.json", "indicators.json"):
        (folder / name).write_text((CONF / name).read_text())
    return folder


def rules(conf, *entries):
    (conf / "watchlists.json").write_text(json.dumps({"rules": list(entries)}))


@pytest.fixture
def scan(spark, lake, registry, settings, calendars, conf):
    def run(rows, symbols=(), prices=(), **changed):
        put(lake, "indicators", rows)
        if symbols:
            put(lake, "symbols", [{"source": "t", **s} for s in symbols])
        put(
            lake,
            "prices",
            [
                {
                    **bar(r["symbol"], r["date"], r["close"]),
                    "volume": int(r["volume"]),
                    "flags": [],
                    "source": "t",
                    "country": r["country"],
                    "market": r["market"],
                }
                | p
                for r in rows
                for p in [next((p for p in prices if p["symbol"] == r["symbol"] and p["date"] == r["date"]), {})]
            ],
        )
        outcome = scan_watchlists(spark, lake, registry, replace(settings, conf=conf, **changed), dict(calendars), DAY)
        found = {}
        for r in lake.read("watchlist").orderBy("list", "market", "rank").collect():
            found.setdefault(r["list"], []).append(r["symbol"])
        return found, outcome

    return run


def row(symbol, day=DAY, **values):
    base = {
        "country": "KR",
        "symbol": symbol,
        "date": day,
        "market": "KOSPI",
        "close": 10_000.0,
        "volume": 1e6,
        "volume_avg_20": 1e6,
    }
    return base | values


def both(symbol, before, now):
    return [row(symbol, BEFORE, **before), row(symbol, **now)]


def test_the_rules_that_ship(scan):
    rows = [
        *both("RSI", {}, {"rsi_14": 29.9}),
        *both("RSI2", {}, {"rsi_14": 30.0}),
        *both("BOL", {}, {"bb_lower": 9_900.991}),
        *both("BOL2", {}, {"bb_lower": 9_900.98}),
        *both("VOL", {"volume_avg_20": 499_999.0}, {}),
        *both("VOL2", {"volume_avg_20": 500_000.0}, {}),
        *both("GC", {"sma_50": 1.0, "sma_200": 1.0}, {"sma_50": 1.1, "sma_200": 1.0}),
        *both("GC2", {"sma_50": 1.05, "sma_200": 1.0}, {"sma_50": 1.1, "sma_200": 1.0}),  # the state, not the crossing
        *both("GC3", {"sma_50": 1.0}, {"sma_50": 1.1, "sma_200": 1.0}),  # not warm before
        *both("DC", {"sma_50": 1.2, "sma_200": 1.0}, {"sma_50": 0.9, "sma_200": 1.0}),
        *both("HI", {"high_252": 10_000.0}, {"high_252": 10_500.0}),
        *both("HI2", {"high_252": 10_500.0}, {}),
    ]
    found, _ = scan(
        rows, prices=[{"symbol": "HI", "date": DAY, "high": 10_500.0}, {"symbol": "HI2", "date": DAY, "high": 10_500.0}]
    )
    assert found["rsi_oversold"] == ["RSI"] and found["bollinger_lower_touch"] == ["BOL"]
    assert found["high_volume"] == ["VOL"] and found["golden_cross"] == ["GC"] and found["dead_cross"] == ["DC"]
    assert found["high_52_week"] == ["HI"]


def test_a_rule_in_capitals_has_its_figures():
    rule = Rule("x", "RSI_14 > 1 AND volume_ratio_20 > 2", "Close desc")
    assert rule.columns(["close", "volume", "rsi_14", "volume_ratio_20"]) == ["close", "rsi_14", "volume_ratio_20"]


def test_caps_ranks_and_top_per_market(scan):
    rows = [row(f"K{n:03d}") for n in range(60)] + [row(f"Q{n}", market="KOSDAQ") for n in range(3)]
    rows += [
        row("USA", country="US", market="NASDAQ", close=100.0),
        row("USB", country="US", market="NASDAQ", close=100.0),
    ]
    symbols = [share(f"K{n:03d}", market_cap=1.4e12 + n) for n in range(60)] + [
        share(f"Q{n}", market="KOSDAQ", market_cap=None, listed_shares=n * 10) for n in range(3)
    ]
    symbols += [
        share("USA", country="US", market="NASDAQ", market_cap=1e9 + 1),
        share("USB", country="US", market="NASDAQ", market_cap=1e9),
    ]
    found, _ = scan(rows, symbols)
    top = found["top_market_cap"]
    assert [s for s in top if s[0] == "K"] == [f"K{n:03d}" for n in range(59, 9, -1)]
    assert [s for s in top if s[0] == "Q"] == ["Q2", "Q1"], "listed shares × close where no cap is given"
    assert [s for s in found["large_cap"] if s[0] == "U"] == ["USA"]
    assert len([s for s in found["large_cap"] if s[0] == "K"]) == 59, "1.4e12 won at 1400 is not above 1e9 dollars"


EXCLUDED = {
    "X1": {"is_halted": True},
    "X2": {"active": False},
    "X3": {"is_warning": True},
    "X4": {"is_administration": True},
    "X5": {"is_etf": True},
}


def test_who_is_never_on_a_list(scan, conf):
    rules(conf, {"name": "everyone", "when": "close > 0"})
    (conf / "lists" / "mine.txt").write_text("OK\nX1\nX5\nX6\n")
    rows = [row(s) for s in (*EXCLUDED, "OK", "X6", "X7", "X8", "NEW")] + [row("GONE", BEFORE)]
    rows = [r | {"volume_avg_20": 9_999.0, "volume": 1e6} if r["symbol"] == "X6" else r for r in rows]
    symbols = [share(s, **flags) for s, flags in EXCLUDED.items()] + [
        share("OK"),
        share("X6"),
        share("X7"),
        share("X8"),
    ]
    flagged = [
        {"symbol": "X7", "date": DAY, "flags": ["jump"]},
        {"symbol": "X8", "date": DAY, "flags": ["unconfirmed_action"]},
    ]
    found, outcome = scan(rows, symbols, flagged)
    assert found["everyone"] == ["NEW", "OK"] or found["everyone"] == ["OK", "NEW"]
    assert found["mine"] == ["OK"]
    assert any("mine: left out" in line and "X1, X5, X6" in line for line in outcome.lines)
    assert any("1 shares have no row in symbols" in line for line in outcome.lines)


def test_a_past_day_has_the_universe_of_that_day(scan, conf):
    rules(conf, {"name": "everyone", "when": "close > 0"})
    symbols = [
        share("A"),
        share("A", "2024-03-06", active=False),
        share("B", "2020-01-02", is_halted=True),
        share("B", "2024-03-05"),
    ]
    found, _ = scan([row("A"), row("B")], symbols)
    assert sorted(found["everyone"]) == ["A", "B"]


def test_a_listing_newer_than_the_session_says_who_may_have_signals(
    scan, conf, spark, lake, registry, settings, calendars
):
    rules(conf, {"name": "everyone", "when": "close > 0"})
    symbols = [share("A"), share("B"), share("B", "2024-03-06", is_warning=True), share("C", "2024-03-06")]
    scan([row("A"), row("B"), row("C")], symbols)
    state = {"country": "KR", "market": "KOSPI", "as_of": DAY, "valid_session": date(2024, 3, 6), "close": 10_000.0}
    put(lake, "live_state", [state | {"symbol": symbol} for symbol in "ABC"])
    scan_watchlists(spark, lake, registry, replace(settings, conf=conf), dict(calendars))
    assert sorted(r["symbol"] for r in lake.read("watchlist").collect()) == ["A", "B", "C"], "as it was on that day"
    may = {r["symbol"]: r["eligible"] for r in lake.read("universe").collect()}
    assert may == {"A": True, "B": False, "C": True}


def test_a_split_moves_no_high_by_a_hair(scan, conf, lake):
    """A high of the day that equals the highest before it is no new one, whatever a later split made of both."""
    rules(conf, {"name": "new_high", "when": "high > prev_high_252"})
    factor, close, high = 0.2, 10_386.0, 10_674.0
    assert high * (close * factor / close) > high * factor, "the hair"
    rows = both("A", {"high_252": high * factor}, {"close": close * factor, "high_252": high * factor})
    put(lake, "actions", [action("A", "2024-03-07", factor, "split")])
    bars = [{"symbol": "A", "date": DAY, "close": close, "high": high, "basis": DAY}]
    found, _ = scan(rows, prices=bars)
    assert "new_high" not in found


def test_a_price_that_stands_still_crosses_nothing(scan, conf):
    """An average of equal prices may differ from them in its last bit."""
    rules(conf, {"name": "up", "cross": ["close", "above", "sma_5"]})
    price = 10.01
    noise = {"close": price, "sma_5": price - 2e-15}
    assert price - noise["sma_5"] > 0
    rows = [*both("STILL", {"close": price, "sma_5": price}, noise), *both("BEFORE", noise, {"sma_5": 9_000.0})]
    found, _ = scan([*rows, *both("UP", {"sma_5": 10_000.0}, {"sma_5": 9_999.0})])
    assert found["up"] == ["BEFORE", "UP"]


def test_an_old_bar_before_is_found_after_a_pause(scan, conf):
    rules(conf, {"name": "crossed", "cross": ["close", "above", "sma_20"]})
    found, _ = scan([row("P", date(2023, 1, 3), close=10_000.0, sma_20=11_000.0), row("P", sma_20=9_000.0)])
    assert found["crossed"] == ["P"]


def test_scanning_twice_writes_once_and_a_changed_rule_replaces(scan, spark, lake, registry, settings, calendars, conf):
    rules(conf, {"name": "low", "when": "rsi_14 < 30"})
    scan([row("A", rsi_14=20.0), row("B", rsi_14=40.0)])
    version = lake.version("watchlist")
    again = replace(settings, conf=conf)
    scan_watchlists(spark, lake, registry, again, dict(calendars), DAY)
    assert lake.version("watchlist") == version
    rules(conf, {"name": "low", "when": "rsi_14 < 50"})
    scan_watchlists(spark, lake, registry, again, dict(calendars), DAY)
    assert sorted(r["symbol"] for r in lake.read("watchlist").collect()) == ["A", "B"]


BAD = [
    ({"name": "a", "when": "rsi_41 < 30"}, "rsi_41"),
    ({"name": "a", "when": "close + 1"}, "BOOLEAN"),
    ({"name": "a", "when": "sum(close) > 1"}, "a"),
    ({"name": "a", "when": "close >"}, "close >"),
    ({"name": "a", "when": "close > 1", "rank_by": "close"}, "must end in asc or desc"),
    ({"name": "a", "when": "close > 1", "rank_by": "closes desc"}, "closes"),
    ({"name": "a", "when": "close > 1", "top": 0}, "top 0"),
    ({"name": "A b", "when": "close > 1"}, "small letters"),
    ({"name": "a", "when": "close > 1", "cross": ["sma_5", "above", "sma_20"]}, "either when or cross"),
    ({"name": "a", "cross": ["sma_5", "over", "sma_20"]}, "above"),
    ({"name": "a", "when": "close > 1", "ranks": 1}, "unknown entry ranks"),
    ({"name": "a", "when": "close > rand()"}, "only look at the share's own columns"),
    ({"name": "a", "when": "close in (select 1)"}, "only look at the share's own columns"),
    ({"name": "a", "when": "close in (TABLE prices)"}, "only look at the share's own columns"),
    ({"name": "a", "when": "date >= DATE'today'"}, "only look at the share's own columns"),
    ({"name": "a", "when": "date > CAST(' Yesterday ' AS DATE)"}, "only look at the share's own columns"),
    ({"name": "a", "when": "close > random()"}, "only look at the share's own columns"),
    ({"name": "a", "when": "date = curdate()"}, "only look at the share's own columns"),
    ({"name": "a", "when": "unix_timestamp( ) > 5"}, "only look at the share's own columns"),
    ({"name": "a", "when": "monotonically_increasing_id() % 2 = 0"}, "only look at the share's own columns"),
]


@pytest.mark.parametrize(("entry", "message"), BAD)
def test_a_wrong_rule_is_refused_with_what_is_valid(spark, lake, registry, settings, calendars, conf, entry, message):
    shares = session_shares(lake, registry, settings, {}, dict(calendars))
    rules(conf, entry)
    with pytest.raises(ConfigError) as caught:
        load_rules(conf / "watchlists.json", shares)
    assert message in str(caught.value) and "rsi_14" in str(caught.value) and "watchlists.json" in str(caught.value)


def test_a_rule_that_fails_over_a_share_is_named(scan, conf):
    rules(conf, {"name": "low", "when": "rsi_14 < 30"}, {"name": "ratio", "when": "1 / (close - 10000) > 0"})
    with pytest.raises(
        ConfigError, match=r"rule ratio fails over a share of this session: .*DIVIDE_BY_ZERO.*try_divide"
    ):
        scan([row("A", rsi_14=20.0)])
    rules(conf, {"name": "low", "when": "rsi_14 < 30"}, {"name": "ratio", "when": "try_divide(1, close - 10000) > 0"})
    assert scan([row("B", rsi_14=40.0)])[0] == {"low": ["A"]}


def test_an_own_list_may_be_long(scan, conf):
    names = [f"S{n}" for n in range(900)]
    (conf / "lists" / "long.txt").write_text("\n".join([*names, "KR:A", "A", "B", "US:B"]))
    rules(conf, {"name": "low", "when": "rsi_14 < 30"})
    found, outcome = scan([row("B"), row("A"), row("S899"), row("C")])
    assert found == {"long": ["S899", "A", "B"]} and outcome.details["lists"]["long"] == 3


def test_an_indicator_that_was_not_computed_yet_is_named(spark, lake, settings, calendars):
    put(lake, "indicators", [row("A")])
    more = Registry.parse({"core": ["sma_5", "sma_7"]})
    with pytest.raises(InputError, match=r"no sma_7, which conf.*: run jobs/compute_indicators"):
        session_shares(lake, more, settings, {"KR": DAY}, dict(calendars))


def test_own_lists(tmp_path):
    (tmp_path / "Twice.txt").write_text("NA")
    (tmp_path / "twice.TXT").write_text("NA")
    with pytest.raises(ConfigError, match="another list is named twice, too"):
        load_lists(tmp_path)
    (tmp_path / "Twice.txt").unlink()
    assert [own.name for own in load_lists(tmp_path)] == ["twice"]
    (tmp_path / "twice.TXT").unlink()
    (tmp_path / "mine.txt").write_text("# my favourites\n005930  # Samsung\nKR:0126Z0\nna\nNA\nUS:BRK-B\n\n")
    lists = load_lists(tmp_path)
    assert lists[0].name == "mine" and lists[0].shares == (
        (None, "005930"),
        ("KR", "0126Z0"),
        (None, "NA"),
        ("US", "BRK-B"),
    )
    (tmp_path / "bad.txt").write_text("005930\n삼성전자\n")
    with pytest.raises(ConfigError, match=r"bad\.txt:2"):
        load_lists(tmp_path)


def test_every_rule_that_ships_is_valid_for_a_small_registry_or_says_why(spark, settings, calendars, tmp_path):
    small = Registry.parse({"core": ["sma_5"]})
    lake = Lake(spark, str(tmp_path / "small"), small.extra_columns)
    with pytest.raises(ConfigError, match="rsi_14"):
        load_rules(CONF / "watchlists.json", session_shares(lake, small, settings, {}, dict(calendars)))
