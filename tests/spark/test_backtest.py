"""A rule's history: the universe and the figures of each day, entries once, nothing from the future, one answer."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from pyspark.sql import functions as F

from sise.errors import ConfigError, InputError
from sise.indicators.compute import compute_indicators
from sise.lake import Lake
from sise.prices.collect import collect_prices
from sise.settings import FxRates
from sise.signals.backtest import Question, backtest_rule, find_entries
from sise.signals.track import evaluated, last_sessions
from sise.sources.base import Request
from sise.watchlists.rules import checked_rule
from sise.watchlists.universe import session_shares, shares_between
from tests.builders import ListSource, action, bar, put, share, walk

COUNT = 8


@pytest.fixture(scope="module")
def days(calendars):
    return calendars["KR"].between(date(2024, 3, 4), date(2024, 3, 31))[:COUNT]


def fill(lake, rows, symbols=(), actions=()):
    """Indicator rows and a price row for each; ``price``: what differs in that one."""
    put(lake, "indicators", [{k: v for k, v in r.items() if k != "price"} for r in rows])
    stored = [
        {**bar(r["symbol"], r["date"], r["close"]), "volume": int(r["volume"]), "flags": [], "source": "t"}
        | r.get("price", {})
        for r in rows
    ]
    put(
        lake,
        "prices",
        [p | {"country": r["country"], "market": r["market"]} for p, r in zip(stored, rows, strict=True)],
    )
    if symbols:
        put(lake, "symbols", [{"source": "t", **s} for s in symbols])
    if actions:
        put(lake, "actions", [{"source": "t", **a} for a in actions])


def row(symbol, day, **values):
    base = {"country": "KR", "symbol": symbol, "date": day, "market": "KOSPI", "close": 10_000.0, "volume": 1e6}
    return base | {"volume_avg_20": 1e6} | values


def test_every_day_has_what_was_true_on_it(lake, registry, settings, calendars, days):
    rows = [row("A", day, rsi_14=20.0 + at) for at, day in enumerate(days)]
    rows += [
        row("P", day, rsi_14=30.0 + at, sma_5=None if at == 0 else 1.0)
        for at, day in enumerate(days)
        if at not in (1, 2)
    ]
    # S: a split of 5:1 falls on session 4; the indicators know it all along
    rows += [
        row(
            "S",
            day,
            close=2_000.0,
            price={"close": 10_000.0, "high": 10_500.0, "open": 9_000.0} if at < 4 else {"high": 2_100.0},
        )
        for at, day in enumerate(days)
    ]
    rows += [row("J", day, price={"flags": ["jump"]} if at == 2 else {}) for at, day in enumerate(days)]
    # H: halted after its jump, without trade on a day and without a bar on the next two
    rows += [
        row("H", day, price={"flags": ["jump"]} if at == 1 else {})
        for at, day in enumerate(days)
        if at not in (2, 3, 4)
    ]
    rows += [row("L", day) for day in days]
    symbols = [
        share("A", market_cap=1e12),
        share("A", days[3], market_cap=2e12, is_warning=True),
        share("A", days[5], active=False),
        share("P", days[4], name="Late"),
        share("L", days[-1] + timedelta(60), name="Later", market_cap=1e13, is_warning=True),
        share("S", market_cap=None, listed_shares=1_000),
        share("S", days[4], market_cap=None, listed_shares=5_000),
        share("H"),
    ]
    fill(lake, rows, symbols, [action("S", str(days[4]), 0.2)])
    known = replace(settings, suppress_bars=3, krw_per_usd=FxRates.parse(f"2020-01-01=1000,{days[6]}=2000"))
    span = {"KR": (days[0], days[-1])}
    history = shares_between(lake.read, registry, known, span, calendars)
    found = {(r["symbol"], r["date"]): r.asDict() for r in history.collect()}
    assert len(found) == len(rows)
    a, p, s = ([found.get((symbol, day)) for day in days] for symbol in "APS")
    assert [r["prev_rsi_14"] for r in a] == [None, 20, 21, 22, 23, 24, 25, 26]
    assert [r["market_cap"] for r in a][1:5] == [1e12, 1e12, 2e12, 2e12]
    assert [r["is_warning"] for r in a][2:4] == [False, True] and [r["active"] for r in a][4:6] == [True, False]
    assert p[3]["prev_rsi_14"] == 30 and p[3]["prev_sma_5"] is None and p[0]["name"] == p[5]["name"] == "Late"
    later = found["L", days[0]]  # what was collected two months afterwards says little about the day
    assert (later["name"], later["market_cap"], later["is_warning"], later["active"]) == ("Later", None, None, None)
    assert {r["market_cap"] for r in s} == {1e7}, "listed shares × the close as it was traded"
    assert [r["high"] for r in s] == [pytest.approx(2_100.0)] * COUNT, "on the indicators' basis"
    assert [r["market_cap_usd"] for r in s][5:7] == [1e4, 5e3]
    assert [bool(found["J", day]["suspect"]) for day in days] == [False, False, True, True, True, False, False, False]
    halted = [(found["H", day]["suspect"] or False) if ("H", day) in found else None for day in days]
    assert halted == [False, True, None, None, None, True, True, False], "its last three bars, not sessions"
    for at in (3, 6):
        alone = session_shares(lake, registry, known, {"KR": days[at]}, calendars)
        for r in alone.collect():
            expected = found[r["symbol"], days[at]]
            assert r.asDict() == expected, "one day's scan sees what the history has for it"


def picks(lake, registry, settings, calendars, days, entry, every_bar=False):
    rule = checked_rule({"name": "r", **entry}, session_shares(lake, registry, settings, {}, calendars))
    span = {"KR": (days[1], days[-1])}
    found = find_entries(lake.read, registry, settings, calendars, rule, span, every_bar).collect()
    return sorted((r["symbol"], days.index(r["session"])) for r in found), found


def test_an_entry_where_the_rule_begins_to_hold(lake, registry, settings, calendars, days):
    below = {"A": "10110110", "B": "01111111", "C": "01111111", "N": "x1x0x1xx"}
    rows = [
        row(s, day, rsi_14={"1": 20.0, "0": 40.0, "x": None}[below[s][at]])
        for s in below
        for at, day in enumerate(days)
        if not (s == "A" and at == 4)
    ]
    symbols = [share("B", is_halted=True), share("B", days[3]), share("C", is_etf=True)]
    fill(lake, rows, symbols)
    rule = {"when": "rsi_14 < 30", "direction": "short"}
    once, found = picks(lake, registry, settings, calendars, days, rule)
    # A: bar 4 is missing, so bar 3, where it held, is the one before bar 5; B: could not be picked when it began
    assert once == [("A", 2), ("N", 1), ("N", 5)]
    assert {r["direction"] for r in found} == {"short"} and {r["market"] for r in found} == {"KOSPI"}
    every, _ = picks(lake, registry, settings, calendars, days, rule, every_bar=True)
    assert [at for s, at in every if s == "B"] == [3, 4, 5, 6, 7] and not [1 for s, _ in every if s == "C"]


def test_top_is_of_the_day_and_the_market(lake, registry, settings, calendars, days):
    caps = {"A": 3e12, "B": 2e12, "C": 1e12}
    rows = [row(s, day) for s in caps for day in days]
    symbols = [share(s, market_cap=cap) for s, cap in caps.items()] + [share("C", days[4], market_cap=4e12)]
    fill(lake, rows, symbols)
    entry = {"when": "market_cap > 0", "rank_by": "market_cap desc", "top": 2}
    once, _ = picks(lake, registry, settings, calendars, days, entry)
    assert once == [("C", 4)], "A and B were there before"
    every, _ = picks(lake, registry, settings, calendars, days, entry, every_bar=True)
    assert every == sorted(
        [("A", n) for n in range(1, 8)] + [("B", n) for n in (1, 2, 3)] + [("C", n) for n in range(4, 8)]
    )


# No look-ahead ----------------------------------------------------------------------------------------------------

SHARES = tuple(f"S{n:02d}" for n in range(24))  # so many that on session KNOWN itself, rules hold for some
LAST, KNOWN = 130, 80  # sessions, and the one up to which everything is known


def market(calendars, shuffled: bool) -> list[dict]:
    """Random shares; ``shuffled``: the bars after session KNOWN change places, and move beyond any limit."""
    sessions = calendars["KR"].between(date(2023, 1, 2), date(2024, 12, 30))[:LAST]
    rows = []
    for seed, symbol in enumerate(SHARES):
        rng = np.random.default_rng(seed)
        closes = np.round(10_000 * np.exp(rng.normal(0, 0.03, LAST).cumsum()))
        volumes = np.round(20_000 * np.exp(rng.normal(0, 0.8, LAST)))
        order = list(range(LAST))
        if shuffled:
            future = order[KNOWN + 1 :]
            random.Random(seed).shuffle(future)
            order[KNOWN + 1 :] = future
            closes[KNOWN + 1 :] = np.round(closes[KNOWN + 1 :] * rng.uniform(0.3, 3, LAST - KNOWN - 1))
        for day, at in zip(sessions, order, strict=True):
            rows += walk(symbol, [day], [closes[at]], volume=float(volumes[at]))
    return rows


def decided(spark, registry, settings, calendars, root, *, shuffled):
    """(entries by rule, evaluations by rule as of the end and as of session KNOWN) from bars to returns."""
    lake = Lake(spark, str(root), registry.extra_columns)
    rows = market(calendars, shuffled)
    future = [action(SHARES[0], str(rows[KNOWN + 10]["date"]), 0.2)] if shuffled else []
    collect_prices(spark, lake, ListSource(rows, actions=future), Request(), settings, calendars)
    compute_indicators(spark, lake, registry, calendars)
    day, last = rows[KNOWN]["date"], rows[LAST - 1]["date"]
    span = {"KR": (rows[0]["date"], last)}
    columns = session_shares(lake, registry, settings, {}, calendars)
    found = {}
    for when in ("close <= bb_lower * 1.01", "volume > 2 * prev_volume_avg_20", "close > prev_close"):
        rule = checked_rule({"name": "r", "when": when}, columns)
        entries = (
            find_entries(lake.read, registry, settings, calendars, rule, span)
            .where(F.col("session") <= F.lit(day))
            .localCheckpoint()
        )
        finished = evaluated(entries, lake.read, calendars, last_sessions(lake.read("prices")), rows[0]["date"])
        then = evaluated(entries, lake.read, calendars, {"KR": day}, rows[0]["date"])
        found[when] = (
            sorted(r["entry_id"] for r in entries.collect()),
            sorted(map(str, finished.where(F.col("until") <= F.lit(day)).collect())),
            sorted(map(str, then.drop("evaluated_on").collect())),
        )
    return found


def test_what_was_decided_does_not_change_with_the_future(spark, registry, settings, calendars, tmp_path):
    one = decided(spark, registry, settings, calendars, tmp_path / "one", shuffled=False)
    other = decided(spark, registry, settings, calendars, tmp_path / "other", shuffled=True)
    for when, (entries, finished, then) in one.items():
        assert len(entries) > 20 and finished and len(finished) < len(entries) == len(then), when
        assert (entries, finished, then) == other[when], when


# The job ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def computed(spark, lake, registry, settings, calendars):
    rows = market(calendars, shuffled=False)
    collect_prices(spark, lake, ListSource(rows), Request(), settings, calendars)
    compute_indicators(spark, lake, registry, calendars)
    return lambda **question: backtest_rule(spark, lake, registry, settings, calendars, Question(**question))


def test_one_question_has_one_answer(lake, computed):
    first = computed(rule="bollinger_lower_touch")
    assert first.rows_in > 10 and first.rows_out > 0
    stored = sorted(map(str, lake.read("backtests").collect()))
    again = computed(rule="bollinger_lower_touch")
    assert again.rows_out == 0 and again.details == first.details
    assert sorted(map(str, lake.read("backtests").collect())) == stored
    whole = [f for f in first.details["figures"] if f["market"] == "ALL"]
    assert [f["horizon"] for f in whole] == [1, 5, 20] and whole[0]["signals"] == first.rows_in
    assert any(line.startswith("5 sessions, all markets: ") and "hits, mean" in line for line in first.lines)

    short = computed(rule="bollinger_lower_touch", direction="short")
    assert short.details["backtest_id"] != first.details["backtest_id"]
    for one, other in zip(first.details["figures"], short.details["figures"], strict=True):
        if one["market"] == "ALL":
            assert one["mean"] == -other["mean"]
    half = computed(when="close <= bb_lower * 1.01", start=date(2023, 4, 3), every_bar=True)
    assert half.details["sessions"]["KR"][0] == date(2023, 4, 3) and half.details["rule"] == "when"
    assert lake.read("backtests").select("backtest_id").distinct().count() == 3
    none = computed(when="close < 0")
    assert none.rows_in == 0 and {(f["signals"], f["cases"], f["mean"]) for f in none.details["figures"]} == {
        (0, 0, None)
    }
    kept = lake.read("backtests").where(F.col("backtest_id") == none.details["backtest_id"]).collect()
    assert [(r["horizon"], r["market"], r["month"]) for r in sorted(kept, key=lambda r: r["horizon"])] == [
        (n, "ALL", "ALL") for n in (1, 5, 20)
    ]


def test_another_calendar_is_another_question(spark, lake, registry, settings, calendars, computed):
    first = computed(when="rsi_14 < 30")
    closed = [day for day in calendars["KR"].days if day != date(2023, 3, 2)]
    other = {**calendars, "KR": replace(calendars["KR"], days=closed)}
    again = backtest_rule(spark, lake, registry, settings, other, Question(when="rsi_14 < 30"))
    assert again.details["backtest_id"] != first.details["backtest_id"]


def test_a_question_that_cannot_be_answered_says_what_can(computed):
    with pytest.raises(InputError, match="there are bollinger_lower_touch, bollinger_upper_touch, cap_floor"):
        computed(rule="rsi")
    with pytest.raises(ConfigError, match="rsi_41"):
        computed(when="rsi_41 < 30")
    with pytest.raises(ConfigError, match=r"rule when fails over a bar of that time: .*DIVIDE_BY_ZERO.*try_divide"):
        computed(when="1 / (close - close) > 0")
    with pytest.raises(InputError, match="no indicators of those days"):
        computed(when="close > 1", start=date(2030, 1, 2))
    with pytest.raises(InputError, match="--rule, or write one with --when"):
        Question(rule="a", when="b")
    with pytest.raises(InputError, match="is after --end"):
        Question(rule="a", start=date(2024, 1, 2), end=date(2024, 1, 1))
