"""A rule's history on the real market equals a plain loop over each share's bars."""

from __future__ import annotations

import math
from datetime import date

import pandas as pd
import pytest

from sise.columns import numbered_sessions
from sise.signals.backtest import find_entries
from sise.signals.performance import LOOKAHEAD, evaluate
from sise.watchlists.rules import checked_rule
from sise.watchlists.universe import session_shares
from tests.conftest import CONF

pytestmark = pytest.mark.market
SPANS = {"KR": (date(2024, 1, 2), date(2025, 3, 31)), "US": (date(2015, 3, 2), date(2018, 12, 31))}
AS_OF = {country: last for country, (_, last) in SPANS.items()}
FLOOR = {"KR": 1e8, "US": 1e6}


def index_close(n: int) -> float:
    return 2000 + 300 * math.sin(n / 7)


@pytest.fixture(scope="module")
def found(real_market, registry, calendars, spark):
    """(entries, evaluations) of rsi_oversold in both countries, as pandas has them."""
    from sise.settings import Settings

    lake, _ = real_market
    empty = session_shares(lake, registry, Settings(conf=CONF), {}, calendars)
    rule = checked_rule({"name": "r", "when": "rsi_14 < 30"}, empty)
    entries = find_entries(lake.read, registry, Settings(conf=CONF), calendars, rule, SPANS).localCheckpoint()
    end = max(calendars[c].after(day, LOOKAHEAD) for c, day in AS_OF.items())
    sessions = numbered_sessions(spark, calendars, date(2015, 1, 2), end)
    korean = [(day, n) for n, day in enumerate(calendars["KR"].days) if day >= date(2023, 12, 1)]
    index = spark.createDataFrame(
        [("KOSPI", d, index_close(n)) for d, n in korean], "index string, date date, close double"
    )
    tables = [lake.read(name) for name in ("prices", "actions")]
    results = evaluate(entries, *tables, index, lake.read("symbols"), sessions, AS_OF)
    return entries.toPandas(), results.toPandas().set_index("entry_id")


@pytest.fixture(scope="module")
def bars(real_market, calendars):
    """The stored bars with rsi_14 and the session's number, by share."""
    lake, _ = real_market
    keys = ["country", "symbol", "date"]
    prices = lake.read("prices").select(*keys, "open", "high", "low", "close", "volume", "flags").toPandas()
    more = lake.read("indicators").select(*keys, "rsi_14", "volume_avg_20").toPandas()
    rows = prices.merge(more, on=keys, how="left").sort_values(keys)
    numbers = {(c, day): n for c, calendar in calendars.items() for n, day in enumerate(calendar.days)}
    rows["n"] = [numbers[key] for key in zip(rows["country"], rows["date"], strict=True)]
    return {key: group for key, group in rows.groupby(["country", "symbol"])}


def test_the_entries_are_those_of_a_loop(found, bars):
    expected = set()
    for (country, symbol), rows in bars.items():
        held, jumped = False, -1000
        for r in rows.itertuples():
            if "jump" in r.flags:
                jumped = r.n
            if r.volume == 0:
                continue
            holds = r.rsi_14 < 30
            average = r.volume if math.isnan(r.volume_avg_20) else r.volume_avg_20
            may = average * r.close >= FLOOR[country] and r.n - jumped >= 20
            first, last = SPANS[country]
            if holds and may and not held and first <= r.date <= last:
                expected.add((country, symbol, r.date))
            held = holds
    entries, _ = found
    assert set(zip(entries["country"], entries["symbol"], entries["session"], strict=True)) == expected
    assert len(expected) == len(entries) > 5000


def traded_by_hand(country: str, rows: pd.DataFrame, start: int, end: int) -> dict:
    """The trade of a signal from session number ``start``; ``end``: the last session known."""
    days = {r.n: r for r in rows.itertuples() if start <= r.n <= min(end, start + 25)}
    out: dict = {"entry": None, "complete": start + 5 <= end, "no_entry": None}
    locked, before = False, days[start].close
    for n in range(start + 1, start + 6):
        bar = days.get(n)
        if bar is None or bar.volume == 0:
            continue
        if country == "KR" and bar.high == bar.low and bar.open > before * 1.29:
            locked, before = True, bar.close
            continue
        out["entry"] = n
        break
    if out["entry"] is None:
        out["no_entry"] = None if start + 5 > end else "locked" if locked else "no_trade"
        return out
    entry, price = out["entry"], days[out["entry"]].open
    out["complete"] = entry + 20 <= end
    for horizon in (1, 5, 20):
        if entry + horizon > end:
            continue
        held = [days[n] for n in range(entry, entry + horizon + 1) if n in days and days[n].volume > 0]
        out[f"return_{horizon}"] = held[-1].close / price - 1
        out[f"exit_{horizon}"] = "close" if held[-1].n == entry + horizon else "no_trade"
        if country == "KR":
            out[f"market_return_{horizon}"] = index_close(entry + horizon) / index_close(entry - 1) - 1
            out[f"excess_{horizon}"] = out[f"return_{horizon}"] - out[f"market_return_{horizon}"]
    held = [days[n] for n in range(entry, entry + 21) if n in days and days[n].volume > 0]
    out["mfe"] = max(b.high for b in held) / price - 1
    out["mae"] = min(b.low for b in held) / price - 1
    return out


def test_the_trades_are_those_of_a_loop(found, bars, calendars):
    entries, results = found
    ends = {c: calendars[c].days.index(day) for c, day in AS_OF.items()}
    seen = {"locked": 0, "no_trade": 0, "running": 0}
    for e in entries.itertuples():
        rows = bars[e.country, e.symbol]
        start = int(rows.loc[rows["date"] == e.session, "n"].iloc[0])
        expected, got = traded_by_hand(e.country, rows, start, ends[e.country]), results.loc[e.entry_id]
        assert got["complete"] == expected["complete"], e
        assert (got["no_entry"] if isinstance(got["no_entry"], str) else None) == expected["no_entry"], e
        if expected["no_entry"]:
            seen[expected["no_entry"]] += 1
        seen["running"] += not expected["complete"]
        for column in [c for c in results.columns if c.startswith(("return", "market_return", "excess", "mfe", "mae"))]:
            value = expected.get(column, float("nan"))
            assert got[column] == pytest.approx(value, abs=2e-10, nan_ok=True), (e, column)
        for n in (1, 5, 20):
            assert (got[f"exit_{n}"] if isinstance(got[f"exit_{n}"], str) else None) == expected.get(f"exit_{n}"), e
    assert seen["no_trade"] > 0 and seen["running"] > 0, seen
