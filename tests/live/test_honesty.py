"""The honesty test: real sessions replayed tick by tick through Kafka, Spark and Redis fire exactly what a plain loop
finds that appends each tick's price as a bar, calls TA-Lib and applies the rules and their arming."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import date

import numpy as np
import pandas as pd
import pytest
import talib

from sise.indicators.compute import compute_indicators
from sise.lake import Lake
from sise.serving.feeds import produce
from sise.serving.kafka import read_all
from sise.serving.streams import Detection
from sise.sources.ticks import ReplayFeed
from sise.topics import DEAD, SIGNALS, Tick
from tests.conftest import CONF
from tests.spark.test_compute import load

pytestmark = pytest.mark.market

SYMBOLS, SESSIONS, TICKS_A_BAR = 200, 20, 8
RULES = {
    rule["name"]: rule["live"] for rule in json.loads((CONF / "watchlists.json").read_text())["rules"] if "live" in rule
}
CURVE = json.loads((CONF / "volume_curves.json").read_text())["KR"]


class PlainLoop:
    """One share: its traded bars so far, which rules are disarmed, and what has fired."""

    def __init__(self, symbol: str, bars: pd.DataFrame):
        self.symbol = symbol
        self.close, self.high, self.volume = (bars[c].to_numpy(float) for c in ("close", "high", "volume"))
        self.last_relaxed: dict[str, int] = {}
        self.counts: dict[tuple[str, str], int] = {}

    def append(self, bar: Mapping) -> None:
        self.close, self.high = np.append(self.close, bar["close"]), np.append(self.high, bar["high"])
        self.volume = np.append(self.volume, float(bar["volume"]))

    def measures(self, tick: Tick, opens: int, closes: int) -> dict[str, float]:
        """Each rule's measure with the tick's price as today's bar; left out where it may not fire at all."""
        price = tick["price"]
        series = np.append(self.close, price)
        found = {"rsi_oversold": talib.RSI(series, 14)[-1]}
        found["rsi_overbought"] = found["rsi_oversold"]
        upper, _, lower = (band[-1] for band in talib.BBANDS(series, 20, 2, 2))
        found["bollinger_lower_touch"], found["bollinger_upper_touch"] = lower * 1.01 / price, price / (upper * 0.99)
        line, signal, _ = talib.MACD(series, 12, 26, 9)
        if line[-2] - signal[-2] <= 0:
            found["macd_cross"] = (line[-1] - signal[-1]) / price
        away = talib.SMA(series, 50) - talib.SMA(series, 200)
        if away[-2] <= 0:
            found["golden_cross"] = away[-1] / price
        if away[-2] >= 0:
            found["dead_cross"] = -away[-1] / price
        if len(self.high) >= 252:
            found["high_52_week"] = price / self.high[-252:].max()
        if tick["timestamp"] - opens >= 30 * 60_000 and len(self.volume) >= 20:
            part = np.interp((tick["timestamp"] - opens) / (closes - opens), *zip(*CURVE, strict=True))
            found["volume_surge"] = tick["day_volume"] / (self.volume[-20:].mean() * part)
        return {rule: value for rule, value in found.items() if not np.isnan(value)}

    def see(self, tick: Tick, opens: int, closes: int) -> Iterator[str]:
        """The ids that this tick makes fire."""
        if abs(tick["price"] / self.close[-1] - 1) > 0.305:
            return  # no corporate action explains it
        measures = self.measures(tick, opens, closes)

        def beyond(rule: str, which: str) -> bool:
            entry = RULES[rule]
            value = measures.get(rule)
            if value is None:
                return False
            limit = entry[which]
            return {"<": value < limit, ">": value > limit, ">=": value >= limit, "<=": value <= limit}[entry["fires"]]

        if not any(beyond(rule, "watch") for rule in RULES):
            return  # no record: nobody hears of this tick
        now = tick["timestamp"]
        for rule in RULES:
            if not beyond(rule, "relaxed"):
                self.last_relaxed.pop(rule, None)
                continue
            last = self.last_relaxed.get(rule)
            if last is not None and now - last <= 60 * 60_000:
                self.last_relaxed[rule] = now
            elif beyond(rule, "at"):
                self.last_relaxed[rule] = now
                count = self.counts[rule, tick["session"]] = self.counts.get((rule, tick["session"]), 0) + 1
                yield f"KR:{self.symbol}:{rule}:{tick['session']}:{count}"
            else:
                self.last_relaxed.pop(rule, None)


@pytest.fixture(scope="module")
def bars(market_files) -> pd.DataFrame:
    """The longest histories and some with halts."""
    frame = pd.read_parquet(market_files["KR"])
    frame["date"] = pd.to_datetime(frame["date"]).dt.date
    size = frame.groupby("symbol").size()
    chosen = sorted(size[size > 300].index)[:: max(1, int((size > 300).sum()) // SYMBOLS)][:SYMBOLS]
    return frame[frame["symbol"].isin(chosen)].sort_values(["date", "symbol"])


def rows_of(frame: pd.DataFrame) -> list[dict]:
    rows = frame.assign(country="KR", market="KOSPI", basis=date(2025, 6, 17), provisional=False).to_dict("records")
    return [row | {"volume": int(row["volume"])} for row in rows]


def test_what_fires_is_what_a_plain_loop_finds(spark, registry, calendars, services, bars, tmp_path):
    sessions = sorted(bars["date"].unique())[-SESSIONS:]
    settings = dataclasses.replace(
        services, lake=str(tmp_path / "lake"), topic_prefix="honest-", redis_prefix="honest:", partitions=2
    )
    lake = Lake(spark, settings.lake, registry.extra_columns)
    load(lake, rows_of(bars[bars["date"] < sessions[0]]))
    compute_indicators(spark, lake, registry, calendars)
    traded = bars[(bars["volume"] > 0) & (bars["date"] < sessions[0])]
    loops = {symbol: PlainLoop(symbol, part) for symbol, part in traded.groupby("symbol")}
    detection = Detection(spark, lake, registry, settings, "micro-batch", tmp_path / "checkpoints")
    detection.start()
    expected: dict[str, Tick] = {}
    sent = refused = 0
    try:
        for number, session in enumerate(sessions):
            today = rows_of(bars[bars["date"] == session])
            hours = calendars["KR"].hours(session)
            opens, closes = (int(moment.timestamp() * 1000) for moment in hours)
            feed = ReplayFeed(today, {"KR": str(session)}, {"KR": hours}, TICKS_A_BAR, seed=number)
            ticks = list(feed.ticks())
            produce(Literal(ticks), settings, lambda: False)
            for tick in ticks:
                loop = loops[tick["symbol"]]
                refused += abs(tick["price"] / loop.close[-1] - 1) > 0.305
                expected |= {name: tick for name in loop.see(tick, opens, closes)}
            sent += len(ticks)
            for bar in today:
                if bar["volume"] > 0:
                    loops[bar["symbol"]].append(bar)
            detection.queries[0].processAllAvailable()
            load(lake, today)
            compute_indicators(spark, lake, registry, calendars)
            detection.watch()  # as the job does each second: it goes on with the new state
    finally:
        detection.stop()
    found = {signal["id"]: signal for signal in read_all(settings, SIGNALS)}
    assert sent > 25_000 and len(expected) > 500
    assert set(found) - set(expected) == set(), "false signals"
    assert set(expected) - set(found) == set(), "lost signals"
    for name, tick in expected.items():
        assert (found[name]["trigger_price"], found[name]["timestamp"]) == (tick["price"], tick["timestamp"])
    assert {name.split(":")[2] for name in expected} >= {"rsi_oversold", "macd_cross", "volume_surge", "high_52_week"}
    assert len(read_all(settings, DEAD)) == refused


@dataclasses.dataclass
class Literal:
    ready: list[Tick]
    name: str = "literal"

    def ticks(self) -> Iterator[Tick]:
        return iter(self.ready)
