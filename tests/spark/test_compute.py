"""The day, a rebuild and the whole history give the same rows; only the affected shares are computed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from datetime import UTC, date, timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from sise.errors import InputError
from sise.indicators.compute import compute_indicators
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.lake_arrow import ArrowDoor
from tests.builders import action, put, walk

SHARES = ("A1", "A2", "P1", "N1")


def prices(seed: int, count: int, drift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(1000 * np.exp((rng.normal(drift, 0.02, count)).cumsum()) * 7) / 7


def market(days, last: int) -> list[dict]:
    """Four shares up to session ``last``: A1 and A2 every day, P1 pauses for 70 sessions, N1 is listed late."""
    rows = []
    for seed, symbol in enumerate(SHARES):
        chosen = [
            d
            for at, d in enumerate(days[:last])
            if not (symbol == "P1" and 255 <= at < 325) and not (symbol == "N1" and at < 310)
        ]
        at = {d: i for i, d in enumerate(days)}
        closes = prices(seed, len(days))
        rows += walk(symbol, chosen, [closes[at[d]] for d in chosen], volume=1000.0 + seed)
    return rows


def load(lake, rows, actions=()):
    """Bars straight into the table, merged as the collecting job merges them."""
    schema = lake.schema("prices")
    if rows:
        values = [
            {**{f: r.get(f) for f in schema.names}, "volume": int(r["volume"]), "flags": [], "source": "t"}
            for r in rows
        ]
        lake.merge("prices", lake.spark.createDataFrame(values, schema))
    if actions:
        put(lake, "actions", actions)


def table(lake, name="indicators"):
    rows = lake.read(name).drop("filter_state", "registry_hash").toPandas()
    keys = [c for c in ("country", "symbol", "date") if c in rows]
    return rows.sort_values(keys).reset_index(drop=True)


def assert_same(got, expected):
    assert len(got) == len(expected) and list(got.columns) == list(expected.columns)
    for column in got.columns:
        if got[column].dtype.kind == "f":
            np.testing.assert_allclose(got[column], expected[column], rtol=1e-12, atol=1e-12, err_msg=column)
        else:
            assert (
                got[column].isna().equals(expected[column].isna())
                and (got[column].dropna() == expected[column].dropna()).all()
            )


def die_at(monkeypatch, table):
    """The next run is killed when it is to replace this table."""
    replace = ArrowDoor.replace

    def dies(self, name, *args, **kwargs):
        if name == table:
            raise KeyboardInterrupt
        return replace(self, name, *args, **kwargs)

    monkeypatch.setattr(ArrowDoor, "replace", dies)


def full_copy(spark, lake, registry, calendars, tmp_path, tables=("prices", "actions")):
    """The same prices in another lake, computed at once."""
    other = Lake(spark, str(tmp_path / "full"), registry.extra_columns)
    for name in tables:
        if lake.exists(name):
            other.append(name, lake.read(name))
    compute_indicators(spark, other, registry, calendars, full=True)
    return other


@pytest.mark.slow
def test_sixty_days_one_by_one_equal_one_full_run(spark, lake, registry, calendars, days, tmp_path):
    """With a pause of months, a new listing, a split that falls due and late corrections on the way."""

    def upto(n):
        return [r for r in market(days, n) if r["date"] == days[n - 1]]

    load(lake, market(days, 280), [action("A1", str(days[300]), 0.5)])
    assert compute_indicators(spark, lake, registry, calendars).details["mode"] == "full"
    affected = {}
    for n in range(281, 341):
        rows = upto(n)
        if n == 290:  # within the states kept
            rows += [
                r | {"close": r["close"] * 1.01, "high": r["high"] * 1.02}
                for r in market(days, 286)
                if r["date"] == days[285] and r["symbol"] == "A2"
            ]
        if n == 295:  # before them
            rows += [
                r | {"close": r["close"] * 1.01, "high": r["high"] * 1.02}
                for r in market(days, 261)
                if r["date"] == days[260] and r["symbol"] == "A2"
            ]
        if n == 299:  # a traded day turns out to be none
            rows += [r | {"volume": 0.0} for r in market(days, 297) if r["date"] == days[296] and r["symbol"] == "A2"]
        load(lake, rows)
        outcome = compute_indicators(spark, lake, registry, calendars)
        assert outcome.details["mode"] == "day"
        if n == 300:  # the split is tomorrow's: live_state is re-based before the first tick, the bars are not
            live = lake.read("live_state").where("symbol = 'A1'").collect()[0]
            bar_row = lake.read("indicators").where((F.col("symbol") == "A1") & (F.col("date") == live["as_of"]))
            bar_row = bar_row.collect()[0]
            assert live["rebased_by"] == 0.5 and live["rsi_14"] == bar_row["rsi_14"]
            for name in ("close", "sma_20", "macd_signal", "bb_lower", "high_252"):
                assert live[name] == pytest.approx(bar_row[name] * 0.5, rel=1e-12), name
            assert live["volume_avg_20"] == pytest.approx(bar_row["volume_avg_20"] * 2, rel=1e-12)
        affected[n] = (outcome.details["shares"], outcome.details["from_first_bar"])
    assert affected[289] == (2, 0) and affected[290] == (2, 0)
    assert affected[295] == (2, 1)
    assert affected[300] == (2, 1), "the split is the next session's"
    assert affected[301] == (2, 1), "the split falls due on its ex-date, for its share only"
    assert affected[311] == (3, 1), "a new listing has no state yet"
    assert affected[326] == (4, 1), "the share that paused goes on from its state"
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))
    assert not lake.read("indicators").where((F.col("symbol") == "A2") & (F.col("date") == F.lit(days[296]))).count()


def test_running_again_changes_nothing_and_says_so(spark, lake, registry, calendars, days):
    load(lake, market(days, 60))
    compute_indicators(spark, lake, registry, calendars)
    versions = {t: lake.version(t) for t in ("indicators", "indicator_state", "live_state")}
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert outcome.details["shares"] == 0 and outcome.rows_out == 0
    assert {t: lake.version(t) for t in versions} == versions


def test_only_the_affected_share_is_written(spark, lake, registry, calendars, days):
    load(lake, market(days, 120))
    compute_indicators(spark, lake, registry, calendars)
    before = lake.version("indicators")
    load(lake, [], [action("A1", str(days[60]), 0.5)])
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert outcome.details["shares"] == outcome.details["from_first_bar"] == 1
    changed = lake.changes("indicators", before, lake.version("indicators"))
    assert {r["symbol"] for r in changed.select("symbol").distinct().collect()} == {"A1"}
    closes = {r["date"]: r["close"] for r in lake.read("indicators").where("symbol = 'A1'").collect()}
    assert closes[days[59]] == pytest.approx(prices(0, 340)[59] / 2) and closes[days[60]] == prices(0, 340)[60]


def test_rebuild_from_a_date_equals_the_whole(spark, lake, registry, calendars, days, tmp_path):
    load(lake, market(days, 300))
    compute_indicators(spark, lake, registry, calendars)
    whole = {name: table(lake, name) for name in ("indicators", "indicator_state", "live_state")}
    for start in (days[295], days[100]):
        outcome = compute_indicators(spark, lake, registry, calendars, rebuild_from=start)
        assert outcome.details["mode"] == "rebuild"
        assert outcome.rows_out == lake.read("indicators").where(F.col("date") >= F.lit(start)).count()
        for name, expected in whole.items():
            assert_same(table(lake, name), expected)
    # what changed before the date, and a split that fell due meanwhile, are not passed over
    rows = [r | {"close": r["close"] * 1.01} for r in market(days, 261) if r["date"] == days[260]]
    load(lake, rows + [r for r in market(days, 301) if r["date"] == days[300]], [action("A1", str(days[300]), 0.5)])
    compute_indicators(spark, lake, registry, calendars, rebuild_from=days[300])
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in whole:
        assert_same(table(lake, name), table(other, name))


def test_a_run_killed_between_its_tables_is_done_again(spark, lake, registry, calendars, days, tmp_path, monkeypatch):
    load(lake, market(days, 100))
    compute_indicators(spark, lake, registry, calendars)
    rows = [r for r in market(days, 101) if r["date"] == days[100] and r["symbol"] != "A2"]
    # and A2's last bars, more than there are states of, turn out to be none
    load(lake, rows + [r | {"volume": 0.0} for r in market(days, 100) if r["symbol"] == "A2" and r["date"] > days[87]])
    die_at(monkeypatch, "live_state")
    with pytest.raises(KeyboardInterrupt):
        compute_indicators(spark, lake, registry, calendars)
    monkeypatch.undo()
    assert lake.read("live_state").agg(F.max("as_of")).collect()[0][0] == days[99]
    compute_indicators(spark, lake, registry, calendars)
    assert lake.read("live_state").where("symbol = 'A2'").collect()[0]["as_of"] == days[87]
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))
    compute_indicators(spark, lake, registry, calendars, rebuild_from=days[95])
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))


def test_a_change_feed_that_no_longer_reaches_back_makes_it_a_full_run(spark, lake, registry, calendars, days):
    load(lake, market(days, 80))
    compute_indicators(spark, lake, registry, calendars)
    done = lake.version("prices")
    for n in (81, 82):
        load(lake, [r for r in market(days, n) if r["date"] == days[n - 1]])
    load(lake, [r | {"close": r["close"] * 1.001} for r in market(days, 82) if r["date"] == days[81]])
    feed = sorted((Path(lake.path("prices")) / "_change_data").glob("*.parquet"))
    long_ago = time.time() - 9 * 86_400
    for n, commit in enumerate(sorted((Path(lake.path("prices")) / "_delta_log").glob("*.json"))[:-1]):
        os.utime(commit, (long_ago + n, long_ago + n))
    assert feed and lake.changes("prices", done, lake.version("prices")) is None, "Spark looks back for a week"
    assert lake.arrow.changes("prices", done, lake.version("prices"), ["symbol"]) is not None
    for path in feed:  # as VACUUM does after that week
        path.unlink()
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert outcome.details["mode"] == "full" and any("no longer reaches back" in line for line in outcome.lines)
    assert lake.read("live_state").where("symbol = 'A1'").collect()[0]["as_of"] == days[81]


def test_a_split_that_fell_due_in_a_pause_is_between_the_last_bar_and_the_session(
    spark, lake, registry, calendars, days, tmp_path
):
    """A1 does not trade on the ex-date, nor has it a bar that evening."""
    rows = [r for r in market(days, 102) if r["symbol"] in ("A1", "A2")]
    load(lake, [r for r in rows if r["date"] < days[100]], [action("A1", str(days[100]), 0.5)])
    compute_indicators(spark, lake, registry, calendars)
    for n in (100, 101):
        load(lake, [r for r in rows if r["date"] == days[n] and r["symbol"] == "A2"])
        compute_indicators(spark, lake, registry, calendars)
        live = lake.read("live_state").where("symbol = 'A1'").collect()[0]
        assert (live["as_of"], live["valid_session"], live["rebased_by"]) == (days[99], days[n + 1], 0.5)
        assert live["close"] == pytest.approx(prices(0, 340)[99] * 0.5, rel=1e-12)
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))


def test_a_share_that_loses_its_last_bar_falls_back_to_the_one_before(spark, lake, registry, calendars, days, tmp_path):
    load(lake, market(days, 100))
    compute_indicators(spark, lake, registry, calendars)
    load(lake, [r | {"volume": 0.0} for r in market(days, 100) if r["date"] == days[99] and r["symbol"] == "A2"])
    compute_indicators(spark, lake, registry, calendars)
    live = {r["symbol"]: r["as_of"] for r in lake.read("live_state").collect()}
    assert live["A2"] == days[98] and live["A1"] == days[99]
    # a day without trade is no bar: the state stands, and is for the session after it
    load(lake, [r | {"volume": 0.0} for r in market(days, 101) if r["date"] == days[100] and r["symbol"] == "A1"])
    compute_indicators(spark, lake, registry, calendars)
    rows = {r["symbol"]: (r["as_of"], r["valid_session"]) for r in lake.read("live_state").collect()}
    assert rows["A1"] == (days[99], days[101]) and rows["A2"] == (days[98], days[101])
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    assert_same(table(lake, "indicators"), table(other, "indicators"))


def test_a_newest_session_that_is_taken_back_takes_its_split_with_it(spark, lake, registry, calendars, days, tmp_path):
    """No job deletes prices, but people do."""
    load(lake, market(days, 61), [action("A1", str(days[60]), 0.5)])
    compute_indicators(spark, lake, registry, calendars)
    spark.sql(f"DELETE FROM delta.`{lake.path('prices')}` WHERE date = DATE'{days[60]}'")
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert any(f"no longer in prices: KR {days[60]}" in line for line in outcome.lines)
    assert {r["valid_session"] for r in lake.read("live_state").collect()} == {days[60]}
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))


def test_a_bar_that_comes_on_an_ex_date_at_its_basis_is_not_rebased_again(
    spark, lake, registry, calendars, days, tmp_path
):
    """Collected on the morning of the split: the last bar is quoted after it, those before are not."""
    rows = [r for r in market(days, 100) if r["symbol"] in ("A1", "A2")]
    load(lake, [r for r in rows if r["date"] < days[99]], [action("A1", str(days[100]), 0.5)])
    compute_indicators(spark, lake, registry, calendars)
    halved = {c: rows[99][c] * 0.5 for c in ("open", "high", "low", "close")}
    assert (rows[99]["symbol"], rows[99]["date"]) == ("A1", days[99])
    load(lake, [rows[99] | halved | {"basis": days[100]}])
    compute_indicators(spark, lake, registry, calendars)
    live = lake.read("live_state").where("symbol = 'A1'").collect()[0]
    assert (live["as_of"], live["valid_session"], live["rebased_by"]) == (days[99], days[100], 0.5)
    assert live["close"] == halved["close"], "it has the basis of the ex-date already"
    assert live["return_1"] == pytest.approx(prices(0, 340)[99] / prices(0, 340)[98] - 1, rel=1e-12)
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))


def test_an_action_of_after_the_next_session_counts_where_a_basis_has_reached_it(
    spark, lake, registry, calendars, days, tmp_path
):
    """A vendor's prices loaded some sessions after their last bar have that day's basis."""
    rows = [r for r in market(days, 60) if r["symbol"] in ("A1", "A2")]
    load(lake, [r | ({"basis": days[63]} if r["symbol"] == "A2" else {}) for r in rows])
    compute_indicators(spark, lake, registry, calendars)
    load(lake, [], [action("A1", str(days[63]), 0.5)])
    outcome = compute_indicators(spark, lake, registry, calendars)
    assert outcome.details["shares"] == 1
    other = full_copy(spark, lake, registry, calendars, tmp_path)
    for name in ("indicators", "indicator_state", "live_state"):
        assert_same(table(lake, name), table(other, name))


def test_a_session_that_the_calendar_takes_back_or_moves(spark, lake, registry, calendars, days):
    """Nobody has new bars then: the ticks of the session that is next all the same have to find their state."""
    rows = [r for r in market(days, 100) if r["symbol"] in ("A1", "A2")]
    load(lake, rows, [action("A1", str(days[101]), 0.5)])
    compute_indicators(spark, lake, registry, calendars)
    kr = calendars["KR"]

    def told():
        rows = lake.read("live_state").orderBy("symbol").collect()
        return [(r["valid_session"], r["rebased_by"]) for r in rows], rows[0]["session_open"].astimezone(UTC)

    assert told() == ([(days[100], 1.0)] * 2, kr.hours(days[100])[0])
    closed = dataclasses.replace(kr, days=tuple(day for day in kr.days if day != days[100]))
    late = dataclasses.replace(kr, odd_hours={days[100]: tuple(at + timedelta(hours=1) for at in kr.hours(days[100]))})
    for there, expected in (
        (closed, ([(days[101], 0.5), (days[101], 1.0)], kr.hours(days[101])[0])),  # before which A1's split falls due
        (late, ([(days[100], 1.0)] * 2, late.hours(days[100])[0])),
    ):
        compute_indicators(spark, lake, registry, calendars | {"KR": there})
        assert told() == expected
        version = lake.version("live_state")
        compute_indicators(spark, lake, registry, calendars | {"KR": there})
        assert lake.version("live_state") == version


def test_prices_made_anew_are_not_taken_for_the_old_ones(spark, lake, registry, calendars, days):
    load(lake, market(days, 60))
    compute_indicators(spark, lake, registry, calendars)
    version = lake.version("prices")
    shutil.rmtree(lake.path("prices"))
    anew = Lake(spark, lake.root, registry.extra_columns)
    load(anew, [r | {c: r[c] * 2 for c in ("open", "high", "low", "close")} for r in market(days, 60)])
    assert anew.version("prices") == version
    outcome = compute_indicators(spark, anew, registry, calendars)
    assert outcome.details["mode"] == "full" and "prices is another one" in outcome.lines[0]
    closes = {r["date"]: r["close"] for r in anew.read("indicators").where("symbol = 'A1'").collect()}
    assert closes[days[59]] == prices(0, 340)[59] * 2


def test_a_changed_registry_makes_it_a_full_run(spark, lake, registry, calendars, days):
    load(lake, market(days, 60))
    compute_indicators(spark, lake, registry, calendars)
    assert lake._detail("indicators", "clusteringColumns") == ["date", "symbol"], "after the first run, too"
    more = Registry.parse(
        {
            "core": ["sma_3", "rsi_5"],
            "extra": [{"column": "adx", "function": "ADX"}, {"column": "willr", "function": "WILLR"}],
        }
    )
    wider = Lake(spark, lake.root, more.extra_columns)
    outcome = compute_indicators(spark, wider, more, calendars)
    assert outcome.details["mode"] == "full" and outcome.details["recomputed_from_first_bar"] == ["adx"]
    assert any("adx remember every bar" in line for line in outcome.lines)
    assert {"sma_3", "rsi_5", "adx", "willr"} < set(wider.read("indicators").columns)
    assert "sma_20" not in wider.read("indicators").columns
    for of in (lake, wider):
        assert [of._detail(name, "clusteringColumns") for name in ("prices", "indicators")] == [["date", "symbol"]] * 2


def test_a_full_run_under_another_registry_that_was_killed_is_not_gone_on_with(
    spark, calendars, days, tmp_path, monkeypatch
):
    def registry(period):
        extra = {"column": "willr", "function": "WILLR", "parameters": {"timeperiod": period}}
        return Registry.parse({"core": ["sma_5", "rsi_5"], "extra": [extra]})

    lake = Lake(spark, str(tmp_path / "marked"), registry(14).extra_columns)
    load(lake, market(days, 60))
    compute_indicators(spark, lake, registry(14), calendars)
    before = table(lake)
    die_at(monkeypatch, "indicator_state")
    with pytest.raises(KeyboardInterrupt):
        compute_indicators(spark, lake, registry(7), calendars)
    monkeypatch.undo()
    assert not table(lake)["willr"].equals(before["willr"])
    assert compute_indicators(spark, lake, registry(14), calendars).details["mode"] == "full"
    assert_same(table(lake), before)
    assert compute_indicators(spark, lake, registry(14), calendars).details["mode"] == "day"


def test_extra_columns_day_by_day(spark, calendars, days, tmp_path):
    registry = Registry.parse(
        {
            "core": ["sma_5", "rsi_5"],
            "extra": [{"column": name.lower(), "function": name} for name in ("OBV", "CCI", "WILLR")],
        }
    )
    lake = Lake(spark, str(tmp_path / "extra"), registry.extra_columns)
    load(lake, market(days, 60))
    compute_indicators(spark, lake, registry, calendars)
    for n in (61, 62):
        load(lake, [r for r in market(days, n) if r["date"] == days[n - 1]])
        assert compute_indicators(spark, lake, registry, calendars).details["mode"] == "day"
    assert_same(table(lake), table(full_copy(spark, lake, registry, calendars, tmp_path)))


def test_shuffled_scaled_and_interleaved_bars(spark, registry, days):
    """Order of arrival and neighbours do not matter; prices × 1000 scale what has a price's unit."""
    from sise.indicators.batch import with_indicators
    from tests.builders import bars_frame

    rows = walk("A1", days[:300], prices(1, 300)) + walk("A2", days[:300], prices(2, 300))
    scaled = [
        r | {c: r[c] * 1000 for c in ("open", "high", "low", "close")} | {"symbol": "A3"}
        for r in rows
        if r["symbol"] == "A1"
    ]
    mixed = [*rows, *scaled]
    np.random.default_rng(5).shuffle(mixed)
    frame = bars_frame(spark, mixed).select(
        "country", "symbol", "date", "market", "open", "high", "low", "close", "volume"
    )
    got = with_indicators(frame, registry).drop("filter_state").toPandas().sort_values(["symbol", "date"])
    alone = with_indicators(frame.where("symbol = 'A1'"), registry).drop("filter_state").toPandas().sort_values("date")
    one, thousand = (got[got["symbol"] == s] for s in ("A1", "A3"))
    for name in registry.core:
        assert (one[name].to_numpy(float)[299:] == alone[name].to_numpy(float)[299:]).all(), name
        unit = 1000 if name.startswith(("sma", "ema", "macd", "bb", "atr", "high", "low")) else 1
        np.testing.assert_allclose(
            thousand[name].to_numpy(float), one[name].to_numpy(float) * unit, rtol=1e-9, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("shape", ["flat", "up", "down"])
def test_limits(spark, registry, days, shape):
    from sise.indicators.batch import with_indicators
    from tests.builders import bars_frame

    closes = {"flat": np.full(260, 12.34), "up": np.arange(1.0, 261), "down": np.arange(260.0, 0, -1)}[shape]
    frame = bars_frame(spark, walk("A1", days[:260], closes)).select(
        "country", "symbol", "date", "market", "open", "high", "low", "close", "volume"
    )
    last = with_indicators(frame, registry).orderBy(F.col("date").desc()).first()
    assert last["rsi_14"] == {"flat": 0.0, "up": 100.0, "down": 0.0}[shape]
    if shape == "flat":
        assert last["bb_upper"] == last["bb_lower"] == pytest.approx(12.34, rel=1e-15)
        assert last["return_20"] == 0.0 and last["volume_ratio_20"] == 1.0
    else:
        assert last["return_1"] == pytest.approx(closes[-1] / closes[-2] - 1, rel=1e-12)


def test_contradicting_arguments(spark, lake, registry, calendars, days):
    load(lake, market(days, 3))
    with pytest.raises(InputError, match="exclude each other"):
        compute_indicators(spark, lake, registry, calendars, full=True, rebuild_from=days[0])


def test_a_window_partition_longer_than_memory_allows_is_still_right(spark, registry, calendars):
    days = calendars["KR"].between(date(2004, 1, 2), date(2024, 12, 30))
    from sise.indicators.rolling import with_rolling
    from tests.builders import bars_frame

    closes = prices(3, len(days))
    frame = bars_frame(spark, walk("A1", days, closes)).select(
        "country", "symbol", "date", "market", "open", "high", "low", "close", "volume"
    )
    small = dataclasses.replace(registry, core=("sma_200", "high_252"))
    last = with_rolling(frame, small).orderBy(F.col("date").desc()).first()
    assert len(days) > 5000
    assert last["sma_200"] == pytest.approx(closes[-200:].mean(), rel=1e-12) and last["high_252"] == pytest.approx(
        closes[-252:].max() * 1.01
    )
