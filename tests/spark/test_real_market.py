"""The real market, end to end: nothing lost at the door, and every indicator equal to TA-Lib's, for every share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import talib
from pyspark.sql import Window
from pyspark.sql import functions as F

from sise.indicators.algebra import Columns
from sise.indicators.batch import with_indicators
from sise.indicators.compute import all_bars
from sise.indicators.live import at_price
from sise.prices.report import quality_report

pytestmark = pytest.mark.market

KR_JUMPS = {
    "001465",
    "009415",
    "012170",
    "021045",
    "078860",
    "079970",
    "107640",
    "159910",
    "176750",
    "33637L",
    "425040",
    "900300",
}


def test_every_row_arrives(real_market, market_files):
    lake, outcomes = real_market
    for country in ("KR", "US"):
        given = pd.read_parquet(market_files[country])
        stored = lake.read("prices").where(F.col("country") == country).toPandas()
        assert outcomes[country].rows_in == len(given) == len(stored) + outcomes[country].rows_rejected
        assert outcomes[country].rows_rejected == 0
        both = given.assign(date=pd.to_datetime(given["date"]).dt.date).merge(stored, on=["symbol", "date"])
        assert len(both) == len(given)
        for column in ("open", "high", "low", "close", "volume"):
            assert (both[f"{column}_x"] == both[f"{column}_y"]).all()


def test_flags_name_what_the_real_file_has(real_market):
    lake, outcomes = real_market
    assert outcomes["KR"].details["flags"] == {"no_trade": 25078, "rounded": 82, "jump": 13, "glitch": 1}
    report = (
        quality_report(lake.read("prices"), lake.read("actions"), lake.read("symbols"), {"KR": 0.305, "US": 0.5})
        .where("country = 'KR' AND check = 'jump'")
        .toPandas()
    )
    assert set(report["symbol"]) == KR_JUMPS
    assert set(report["likely_cause"]) == {"unknown"}
    glitch = report[(report["symbol"] == "425040") & report["pattern"].notna()]
    assert [str(d) for d in glitch["date"]] == ["2023-12-28"]


def reference(bars: pd.DataFrame) -> pd.DataFrame:
    """One share's indicators by TA-Lib and, where it has none, by numpy."""
    c, h, lo, v = (bars[x].to_numpy(float) for x in ("close", "high", "low", "volume"))
    out = {f"sma_{n}": talib.SMA(c, n) for n in (5, 20, 50, 60, 120, 200)}
    out |= {f"ema_{n}": talib.EMA(c, n) for n in (12, 26)}
    out["macd"], out["macd_signal"], out["macd_hist"] = talib.MACD(c, 12, 26, 9)
    out["rsi_14"] = talib.RSI(c, 14)
    out["bb_upper"], out["bb_middle"], out["bb_lower"] = talib.BBANDS(c, 20, 2, 2)
    out["atr_14"] = talib.ATR(h, lo, c, 14)
    out["volume_avg_20"] = talib.SMA(v, 20)
    out["volume_ratio_20"] = v / out["volume_avg_20"]
    out["high_252"], out["low_252"] = talib.MAX(h, 252), talib.MIN(lo, 252)
    for n in (1, 5, 20):
        out[f"return_{n}"] = np.concatenate([np.full(min(n, len(c)), np.nan), c[n:] / c[:-n] - 1])
    return pd.DataFrame(out, index=bars.index)


@pytest.fixture(scope="module")
def computed(real_market):
    lake, _ = real_market
    table = lake.read("indicators").drop("filter_state").toPandas().sort_values(["country", "symbol", "date"])
    prices = lake.read("prices").where("volume > 0").select("country", "symbol", "date", "high", "low").toPandas()
    return table.merge(prices, on=["country", "symbol", "date"]).reset_index(drop=True)


def test_parity_with_talib_for_every_share(computed):
    shares = computed.groupby(["country", "symbol"], sort=False)
    expected = pd.concat([reference(bars) for _, bars in shares])
    assert len(expected) > 1_250_000
    close, volume = computed["close"].to_numpy(), computed["volume"].to_numpy()
    for name in expected.columns:
        ours, theirs = computed[name].to_numpy(float), expected[name].to_numpy(float)
        assert (np.isnan(ours) == np.isnan(theirs)).all(), f"{name}: null on other bars than TA-Lib"
        # near zero the price is the measure: a band's or a MACD's digits come from the prices
        scale = np.maximum(np.abs(theirs), close if name.startswith(("macd", "bb_", "atr")) else 0)
        scale = np.maximum(scale, volume if name == "volume_avg_20" else 0)
        scale = np.maximum(scale, 1.0 if name.startswith("return") else 1e-300)
        worst = np.nanmax(np.abs(ours - theirs) / scale)
        assert worst <= 1e-9, f"{name}: {worst:.2e}"


def test_live_parity_at_every_close(real_market, registry, calendars, spark):
    """tick(state of the bar before, this bar's price) == batch(this bar), over all of the real prices."""
    lake, _ = real_market
    rows = with_indicators(all_bars(lake), registry, keep=1_000_000)
    order = Window.partitionBy("symbol", "country").orderBy("date")
    live = [*registry.core, *registry.ingredients]
    before = rows.withColumn("_before", F.lag(F.struct("filter_state", "close", *registry.core)).over(order))
    state = {name: F.col(f"_before.filter_state.{name}") for name in registry.state}
    state |= {name: F.col("_before.filter_state.live")[i] for i, name in enumerate(live)}
    state["close"] = F.col("_before.close")
    tick = at_price(registry, F.col("close"), F.col("volume"), state, Columns())
    # high_252 and low_252 take the price for the bar's range: compare them with the range so far and the price
    tick["high_252"] = F.greatest(tick["high_252"], F.when(tick["high_252"].isNotNull(), F.col("high")))
    tick["low_252"] = F.least(tick["low_252"], F.when(tick["low_252"].isNotNull(), F.col("low")))
    assert set(registry.core) - set(tick) == {"atr_14"}
    checks = []
    for name, value in tick.items():
        batch = F.col(name)
        # a filter's first value is a plain mean, made on the bar itself: before it there is no state to go on from
        seeding = F.lit(name in registry.recursive) & value.isNull() & F.col(f"_before.{name}").isNull()
        scale = F.greatest(
            F.abs(batch),
            F.when(F.lit(name.startswith(("macd", "bb_"))), F.col("close")).otherwise(0.0),
            F.when(F.lit(name.startswith("return")), 1.0).otherwise(1e-300),
        )
        checks.append(F.max(F.abs(value - batch) / scale).alias(name))
        checks.append(F.sum(((value.isNull() != batch.isNull()) & ~seeding).cast("int")).alias(f"{name}_nulls"))
    worst = before.where("_before IS NOT NULL").agg(*checks).collect()[0].asDict()
    for name in tick:
        assert worst[f"{name}_nulls"] == 0, f"{name}: null at the tick and not in the batch, or the other way round"
        assert worst[name] is not None and worst[name] <= 1e-9, f"{name}: {worst[name]}"


def test_live_state_is_the_last_bar(real_market, registry, calendars):
    lake, _ = real_market
    live = lake.read("live_state").toPandas()
    last = lake.read("indicators").groupBy("country", "symbol").agg(F.max("date").alias("date"))
    rows = lake.read("indicators").join(last, ["country", "symbol", "date"]).toPandas()
    both = live.merge(rows, on=["country", "symbol"], suffixes=("", "_batch"))
    assert len(both) == len(live) == len(rows) > 3000
    assert (both["as_of"] == both["date"]).all()
    assert set(live["registry_hash"]) == {registry.hash}
    assert set(live[live["country"] == "KR"]["valid_session"].astype(str)) == {"2025-04-01"}
    assert set(live[live["country"] == "US"]["valid_session"].astype(str)) == {"2019-01-02"}
    for name in registry.core:
        ours, batch = both[name].to_numpy(float), both[f"{name}_batch"].to_numpy(float)
        np.testing.assert_allclose(ours, batch, rtol=1e-12, atol=1e-300, err_msg=name)
