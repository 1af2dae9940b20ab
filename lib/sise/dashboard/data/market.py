"""The market as a whole: breadth by session, the map of shares by market cap, and the movers."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd

from sise.dashboard.data.names import listing
from sise.dashboard.data.view import LakeView
from sise.errors import SiseError

__all__ = ["board", "breadth", "last_session", "movers", "sparks"]

_BREADTH = ["country", "symbol", "date", "market", "close", "return_1", "rsi_14", "high_252", "low_252", "sma_200"]


def last_session(view: LakeView, country: str) -> date | None:
    """The newest session with indicators, as live_state says."""
    rows = view.frame("live_state", ["country", "as_of"])
    days = rows[rows["country"] == country]["as_of"].dropna()
    return max(days) if len(days) else None


def _recent(view: LakeView, days: int) -> pd.DataFrame:
    """The indicators of the last ``days`` calendar days before each country's own last session, columns that are not
    configured as nulls."""
    newest = {c: day for c in ("KR", "US") if (day := last_session(view, c)) is not None}
    if not newest:
        raise SiseError(f"{view.reader.root}/live_state has no share yet: run jobs/compute_indicators.py first")
    there = [c for c in _BREADTH if c in view.columns("indicators")]

    def build() -> pd.DataFrame:
        span = timedelta(days=days)
        rows = pd.concat(
            [
                view.read("indicators", there, [("country", "=", country), ("date", ">=", day - span)])
                for country, day in newest.items()
            ],
            ignore_index=True,
        )
        for column in set(_BREADTH) - set(there):
            rows[column] = np.nan
        rows["market"] = rows["market"].astype("category")
        return rows

    return view.memo(["indicators", "live_state"], ("recent", days), build)


def breadth(view: LakeView, market: str, days: int = 180) -> pd.DataFrame:
    """By session of a market, oldest first: traded, advancers, decliners, unchanged, new_highs, new_lows (the 252-bar
    extreme moved beyond what it was at the share's bar before, as the shipped rule has it), above_200, oversold
    (RSI < 30), overbought (> 70) as counts, warm: how many of the shares have the indicator."""

    def build() -> pd.DataFrame:
        rows = _recent(view, days)
        rows = rows[rows["market"] == market].sort_values("date", kind="stable")
        before = rows.groupby("symbol")[["high_252", "low_252"]].shift()
        if rows["date"].nunique() > 1:  # nothing is known of the bar before the oldest ones
            newer = rows["date"] > rows["date"].min()
            rows, before = rows[newer], before[newer]
        flags = pd.DataFrame(
            {
                "date": rows["date"],
                "traded": 1,
                "advancers": rows["return_1"] > 0,
                "decliners": rows["return_1"] < 0,
                "unchanged": rows["return_1"] == 0,
                "new_highs": rows["high_252"] > before["high_252"],
                "new_lows": rows["low_252"] < before["low_252"],
                "warm_252": before["high_252"].notna(),
                "above_200": rows["close"] > rows["sma_200"],
                "warm_200": rows["sma_200"].notna(),
                "oversold": rows["rsi_14"] < 30,
                "overbought": rows["rsi_14"] > 70,
                "warm_rsi": rows["rsi_14"].notna(),
            }
        )
        return flags.groupby("date", as_index=False).sum().sort_values("date", ignore_index=True)

    return view.memo(["indicators", "live_state"], ("breadth", market, days), build)


def board(view: LakeView, market: str) -> pd.DataFrame:
    """The shares of a market on its country's last session: share, symbol, name, market_cap (in the share's currency,
    else listed shares × close), close, return_1, return_5, return_20, rsi_14, volume_ratio_20, turnover."""
    country = "KR" if market in ("KOSPI", "KOSDAQ") else "US"
    day = last_session(view, country)
    wanted = ["symbol", "market", "close", "volume", "return_1", "return_5", "return_20", "rsi_14", "volume_ratio_20"]

    def build() -> pd.DataFrame:
        there = [c for c in wanted if c in view.columns("indicators")]
        rows = view.read("indicators", there, [("date", "=", day), ("country", "=", country)])
        for column in set(wanted) - set(there):
            rows[column] = np.nan
        rows = rows[rows["market"] == market]
        rows = rows.assign(share=country + ":" + rows["symbol"].astype(str)).set_index("share")
        listed = listing(view)[["name", "market_cap", "listed_shares"]]
        rows = rows.join(listed, how="left")
        rows["market_cap"] = rows["market_cap"].fillna(rows["listed_shares"] * rows["close"])
        rows["turnover"] = rows["close"] * rows["volume"]
        return rows.sort_values("market_cap", ascending=False, na_position="last").reset_index()

    if day is None:
        return pd.DataFrame(columns=["share", *wanted, "name", "market_cap", "listed_shares", "turnover"])
    return view.memo(["indicators", "live_state", "symbols"], ("board", market), build)


def movers(rows: pd.DataFrame, by: str, count: int = 12, floor: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The largest rises and falls of ``board`` by a column, among shares that traded at least ``floor`` that day."""
    known = rows[rows[by].notna() & (rows["turnover"] >= floor)]
    return known.nlargest(count, by), known.nsmallest(count, by)


def sparks(view: LakeView, bars: int = 30) -> dict[str, list[float]]:
    """The last closes of every share (KR:005930), oldest first, on the indicators' basis."""

    def build() -> dict[str, list[float]]:
        rows = _recent(view, 60)[["country", "symbol", "date", "close"]].sort_values("date")
        by = rows.groupby(["country", "symbol"], observed=True)["close"]
        return {f"{country}:{symbol}": list(closes[-bars:]) for (country, symbol), closes in by}

    return view.memo(["indicators", "live_state"], ("sparks", bars), build)
