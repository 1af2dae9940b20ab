"""What the viewer reads without Spark equals what Spark wrote and would say."""

from __future__ import annotations

import json
from datetime import date

import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F

from sise.dashboard.data import lists, market, share, system, worth
from sise.dashboard.data.names import find, listing
from sise.dashboard.data.view import LakeView
from sise.dashboard.live import Live
from sise.dashboard.preview import picked, session_rows
from sise.errors import InputError
from sise.lake import Lake
from sise.prices.adjust import adjusted_prices, applied_of, with_actions
from sise.signals.rules import LiveRules
from sise.watchlists.rules import Rule, parsed_rules
from sise.watchlists.universe import session_shares
from tests.builders import share as symbol_row
from tests.conftest import CONF
from tests.sample_lake import HOSTILE, LAST, TODAY

SHIPPED, _ = parsed_rules(json.loads((CONF / "watchlists.json").read_text()))


@pytest.fixture(scope="module")
def view(sample_lake) -> LakeView:
    return LakeView(sample_lake, fresh=0.0)


@pytest.fixture(scope="module")
def lake(spark, sample_lake, registry) -> Lake:
    return Lake(spark, sample_lake.lake, registry.extra_columns)


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: rule.name)
def test_the_preview_picks_what_the_scan_picked(view, lake, calendars, rule):
    found = picked(session_rows(view, calendars), rule)
    scanned = lists.entries(view, rule.name)
    assert set(zip(found["market"], found["symbol"], found["rank"], strict=True)) == set(
        zip(scanned["market"], scanned["symbol"], scanned["rank"], strict=True)
    )


def test_the_rows_of_the_preview_are_the_universes(view, lake, registry, sample_lake, calendars):
    """Every column that a rule may name, share by share, nulls as nulls."""
    days = {c: market.last_session(view, c) for c in ("KR", "US")}
    wanted = session_shares(lake, registry, sample_lake, days, calendars)
    names = [c for c, kind in wanted.dtypes if kind in ("double", "bigint", "boolean", "string") and c != "suspect"]
    expected = {(r["country"], r["symbol"]): r for r in wanted.select(*names).collect()}
    rows = session_rows(view, calendars)
    assert set(names) <= set(rows.column_names)
    found = {(r["country"], r["symbol"]): r for r in rows.select(names).to_pylist()}
    assert set(found) == set(expected) and len(found) > 30
    for key, row in found.items():
        for name in names:
            want = expected[key][name]
            same = want == row[name] or (want is not None and row[name] == pytest.approx(want, rel=1e-12))
            assert same, (key, name, want, row[name])


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("no_such < 3", "no_such"),
        ("rsi_14 <", "syntax"),
        ("rsi_14", "true or false"),
        ("symbol IN (SELECT symbol FROM shares)", "share's own columns"),
        ("reflect('java.lang.System', 'exit', 1) IS NULL", "share's own columns"),
        ("length((read_text('/etc/passwd'))) > 0", ""),
        ("getenv('HOME') = 'x'", ""),
        ("rsi_14 < 30) OR (1 = 1", ""),
    ],
)
def test_a_rule_that_is_wrong_or_looks_elsewhere_is_refused(view, calendars, when, words):
    with pytest.raises(InputError) as problem:
        picked(session_rows(view, calendars), Rule("x", when))
    assert words in str(problem.value) and "root:" not in str(problem.value)


def test_history_is_adjusted_as_spark_adjusts_it(view, lake):
    """Every share with a split or reduction, bar by bar; and raw as it was traded."""
    prices, actions = lake.read("prices"), lake.read("actions")
    split = actions.where("factor IS NOT NULL AND kind != 'dividend'").select("country", "symbol").distinct().collect()
    assert len(split) >= 2
    mine = prices.join(lake.spark.createDataFrame(split), ["country", "symbol"], "left_semi").where("volume > 0")
    raw = with_actions(mine, actions)
    raw = raw.withColumn("raw", F.col("close") / applied_of("_actions"))
    expected = {(r["country"], r["symbol"], r["date"]): r for r in adjusted_prices(mine, actions).collect()}
    traded = {(r["country"], r["symbol"], r["date"]): r["raw"] for r in raw.collect()}
    checked = 0
    for country, symbol in split:
        for row in share.history(view, country, symbol).to_dict("records"):
            want = expected[country, symbol, row["date"]]
            for name in ("open", "high", "low", "close", "volume"):
                assert row[name] == pytest.approx(want[name], rel=1e-12)
            checked += 1
        for row in share.history(view, country, symbol, raw=True).to_dict("records"):
            assert row["close"] == pytest.approx(traded[country, symbol, row["date"]], rel=1e-12)
    assert checked == len(expected) > 500


def test_indicators_stand_beside_their_bar(view, lake):
    symbol = lists.entries(view, "top_market_cap").iloc[0]
    rows = share.history(view, symbol["country"], symbol["symbol"])
    known = lake.read("indicators").where(F.col("symbol") == symbol["symbol"]).orderBy("date").collect()
    assert list(rows["date"]) == [r["date"] for r in known]
    assert rows["close"].tolist() == pytest.approx([r["close"] for r in known], rel=1e-12)
    assert rows["rsi_14"].iloc[-1] == known[-1]["rsi_14"]


def test_who_entered_and_who_left(view, lake):
    rows = lake.read("watchlist").where("list = 'rsi_oversold' OR list = 'high_volume'").collect()
    came_or_went = 0
    for name in ("rsi_oversold", "high_volume"):
        came, went, compared = lists.changes(view, name)
        for country, before in compared.items():
            then = {r["symbol"] for r in rows if (r["list"], r["country"], r["date"]) == (name, country, before)}
            now = {r["symbol"] for r in rows if (r["list"], r["country"], r["date"]) == (name, country, LAST)}
            assert set(came[came["country"] == country]["symbol"]) == now - then
            assert set(went[went["country"] == country]["symbol"]) == then - now
            came_or_went += len(now ^ then)
    assert came_or_went, "the sample has no change: the test says nothing"


def test_since_when_a_share_stands_on_a_list(view):
    days = lists.sessions(view)
    rows = lists.entries(view, "large_cap")
    assert len(days) == 2 and set(rows["since"]) <= set(days) and (rows["since"] == days[1]).any()
    member = share.memberships(view, rows.iloc[0]["country"], rows.iloc[0]["symbol"])
    assert set(member[member["list"] == "large_cap"]["date"]) <= set(days)


def test_breadth_counts_what_spark_counts(view, lake):
    last = market.breadth(view, "KOSPI").iloc[-1]
    share_ = Window.partitionBy("country", "symbol").orderBy("date")
    rows = lake.read("indicators").withColumn("before", F.lag("high_252").over(share_))
    rows = rows.where(F.col("date") == F.lit(last["date"])).where("market = 'KOSPI'")
    row = rows.agg(
        F.count(F.lit(1)).alias("traded"),
        F.count_if(F.expr("return_1 > 0")).alias("advancers"),
        F.count_if(F.expr("return_1 < 0")).alias("decliners"),
        F.count_if(F.expr("rsi_14 < 30")).alias("oversold"),
        F.count_if(F.expr("high_252 > before")).alias("new_highs"),
        F.count_if(F.expr("close > sma_200")).alias("above_200"),
    ).collect()[0]
    assert {k: int(last[k]) for k in row.asDict()} == row.asDict()
    board = market.board(view, "KOSPI")
    assert len(board) == row["traded"] and board["market_cap"].is_monotonic_decreasing
    up, down = market.movers(board, "return_1", 3)
    assert up["return_1"].iloc[0] == board["return_1"].max() and down["return_1"].iloc[0] == board["return_1"].min()


def test_what_signals_were_worth_agrees_with_the_summary(view):
    """The figures out of single signals are those that Spark summarized."""
    rows = worth.outcomes(view, 5)
    whole = worth.distribution(rows)
    by = worth.summary(view, 5)
    assert len(by) == 2 and whole["cases"] == by["cases"].sum() > 30
    for row in by.to_dict("records"):
        mine = worth.distribution(rows[rows["rule"] == row["rule"]])
        for name, other in (("hit_rate", "hit_rate"), ("mean", "mean"), ("median", "median"), ("spread", "spread")):
            assert mine[name] == pytest.approx(row[other], abs=1e-9), name
        assert mine["excess"] == pytest.approx(row["mean_excess"], abs=1e-9)


def test_levels_of_many_go_on_where_they_stopped(view, registry):
    rules = LiveRules.load(CONF / "watchlists.json", registry)
    shares = list(listing(view).index[:6])
    some, whole = share.levels_of_many(view, registry, rules, shares, -1.0)
    assert not whole and not some
    for _ in range(50):
        some, whole = share.levels_of_many(view, registry, rules, shares, 0.05)
        if whole:
            break
    assert whole and list(some) == shares and any(level.price for levels in some.values() for level in levels)


def test_the_system_page_knows_runs_coverage_quality_and_refusals(view, sample_lake, calendars):
    assert system.runs(view)["job"].iloc[0] == "track_signals"
    rows = system.coverage(view, calendars, dict.fromkeys(("KR", "US"), TODAY)).set_index("market")
    assert rows.loc["KOSPI", "last"] == LAST and rows.loc["NASDAQ", "sessions_behind"] == 2
    assert 0.8 < rows.loc["KOSDAQ", "coverage"] <= 1
    report, written = system.quality(sample_lake.local)
    assert written is not None and "check" in report
    by, newest = system.rejected(view)
    assert by["rows"].sum() == len(newest) == 1 and HOSTILE in newest["reason"].iloc[0]
    assert system.backup(view) is None
    signals = tuple({"relayed": 100 + n, "received": 90} for n in range(11))
    assert system.latency(Live(1, signals)) == {"signals": 11, "p50": 15.0, "p95": 19.5, "max": 20.0}


def test_a_new_version_is_seen_and_an_old_frame_is_kept(spark, lake, registry, tmp_path, sample_lake):
    import dataclasses

    settings = dataclasses.replace(sample_lake, lake=str(tmp_path / "lake"))
    fresh, kept = LakeView(settings, fresh=0.0), LakeView(settings, fresh=3600.0)
    assert listing(fresh).empty and not fresh.exists("prices") and fresh.version("symbols") == -1
    other = Lake(spark, settings.lake, registry.extra_columns)
    schema = other.schema("symbols")
    for n, name in enumerate(("First", "Second")):
        row = symbol_row("005930", f"2025-01-0{n + 2}", name=name) | {"source": "t", "collected_at": None}
        other.append("symbols", spark.createDataFrame([row], schema))
        assert listing(fresh).loc["KR:005930", "name"] == name
        assert list(find(fresh, name.lower())["symbol"]) == ["005930"]
        if n == 0:
            first = listing(LakeView(settings, fresh=3600.0))
            assert listing(kept).empty is False or kept.version("symbols") == -1
            assert first.loc["KR:005930", "name"] == "First"
    frame = fresh.frame("symbols", ["symbol", "valid_from"])
    assert fresh.frame("symbols", ["symbol", "valid_from"]) is frame
    assert frame["valid_from"].iloc[0] in (date(2025, 1, 2), date(2025, 1, 3))
