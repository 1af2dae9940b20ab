"""Bars walked into ticks respect the bar; a feed's pace is what was asked for."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from sise.errors import UsageError
from sise.indicators.registry import Registry
from sise.serving.feeds import add_feed, feed_of, paced
from sise.settings import Settings
from sise.sources.ticks import ReplayFeed, walk_bar
from sise.ticks import krx_tick, limit_prices

OPENS, CLOSES = datetime(2025, 3, 31, tzinfo=UTC), datetime(2025, 3, 31, 6, 30, tzinfo=UTC)


def bar(**other):
    found = {"country": "KR", "symbol": "005930", "market": "KOSPI", "date": date(2025, 3, 31), "volume": 1_000_003}
    return found | {"open": 70_000.0, "high": 71_500.0, "low": 69_400.0, "close": 70_900.0} | other


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_a_walk_respects_its_bar(seed, steps):
    rng = np.random.default_rng(seed)
    opened, close = (float(rng.integers(69_400, 71_500) // 100 * 100) for _ in range(2))
    ticks = walk_bar(bar(open=opened, close=close), OPENS, CLOSES, steps, rng)
    times, prices, volumes, totals = (list(column) for column in zip(*ticks, strict=True))
    assert len(ticks) == max(4, steps)
    assert (prices[0], max(prices), min(prices), prices[-1]) == (opened, 71_500, 69_400, close)
    assert (
        times == sorted(set(times)) and times[0] == OPENS.timestamp() * 1000 and times[-1] == CLOSES.timestamp() * 1000
    )
    assert totals[-1] == sum(volumes) == 1_000_003 and totals == sorted(totals) and min(volumes) >= 0
    assert all(price % krx_tick(price) == 0 for price in prices)


def test_a_bar_without_a_range_and_a_day_without_trade():
    ticks = walk_bar(bar(open=100, high=100, low=100, close=100), OPENS, CLOSES, 10, np.random.default_rng(1))
    assert {price for _, price, _, _ in ticks} == {100.0}
    feed = ReplayFeed([bar(volume=0), bar(open=0.0)], {"KR": "2025-03-31"}, {"KR": (OPENS, CLOSES)})
    assert list(feed.ticks()) == []


def test_a_replay_is_in_the_order_of_time():
    bars = [bar(symbol=f"{n:06}") for n in range(5)]
    ticks = list(ReplayFeed(bars, {"KR": "2025-03-31"}, {"KR": (OPENS, CLOSES)}, steps=12).ticks())
    assert len(ticks) == 60 and [t["timestamp"] for t in ticks] == sorted(t["timestamp"] for t in ticks)
    assert all(t["clock"] == t["timestamp"] and t["session"] == "2025-03-31" for t in ticks)


def test_a_replay_of_the_session_to_come_keeps_to_the_exchanges_prices(tmp_path):
    as_of, session = date(2025, 3, 28), date(2025, 3, 31)
    share = {"country": "KR", "symbol": "000020", "market": "KOSPI"}
    hours = {"session_open": OPENS, "session_close": CLOSES}
    tables = {  # the state is re-based, so that nothing lies on a step by itself; the high is beyond the limit
        "live_state": [share | {"close": 57_800.0, "as_of": as_of, "valid_session": session} | hours],
        "indicators": [{k: share[k] for k in ("country", "symbol")} | {"date": as_of, "return_1": 0.0123}],
        "prices": [bar(**share, date=as_of, open=1003.0, high=1400.0, low=997.0, close=1011.0)],
    }
    for name, rows in tables.items():
        write_deltalake(tmp_path / name, pa.Table.from_pylist(rows))
    parser = argparse.ArgumentParser()
    add_feed(parser)
    args = parser.parse_args(["--source", "replay", "--symbols", "all"])
    prices = [t["price"] for t in feed_of(args, Settings(lake=str(tmp_path)), Registry(()), {}).ticks()]
    assert len(prices) == 32 and all(price % krx_tick(price) == 0 for price in prices)
    assert max(prices) == limit_prices(57_800.0)[1] and prices[-1] == round(57_800 * 1.0123 / 100) * 100


def test_the_pace():
    ticks = [{"clock": n * 1000} for n in range(6)]
    for rate, speed, seconds in ((50.0, None, 0.1), (None, 50.0, 0.1), (None, None, 0.0)):
        started = time.monotonic()
        assert list(paced(iter(ticks), rate, speed, lambda: False)) == ticks
        assert seconds <= time.monotonic() - started < seconds + 1
    assert list(paced(iter(ticks), None, None, lambda: True)) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--rate nan", "--rate nan must be a number above 0"),
        ("--interval inf", "--interval inf must be a number above 0"),
        ("--count 0", "--count 0 must be 1 or more"),
        ("--seed -1", "--seed -1 must be 0 or more"),
        ("--per-bar 0", "--per-bar 0 must be 1 or more"),
    ],
)
def test_arguments_that_make_no_sense_are_named(given, said):
    parser = argparse.ArgumentParser()
    add_feed(parser)
    with pytest.raises(UsageError, match=f"^{said}$"):
        feed_of(parser.parse_args(["--source", "test", *given.split()]), Settings(), Registry(()), {})
