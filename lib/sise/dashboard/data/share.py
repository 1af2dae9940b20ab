"""One share: its bars and indicators, its splits and dividends, its signals, and where its rules would fire."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from sise.dashboard.data.view import LakeView
from sise.indicators.registry import Registry
from sise.prices.factors import factors_of
from sise.signals.levels import Level, levels_of, needs_volume, strict_at
from sise.signals.rules import LiveRule, LiveRules

__all__ = ["actions", "fired", "history", "holding", "levels", "levels_of_many", "memberships", "nearest", "states"]

_HISTORIES = 200  # kept at most: ten years of a share with its indicators are a megabyte
_BARS = ["date", "market", "open", "high", "low", "close", "volume", "value", "basis", "provisional", "flags"]
# On the price's own scale: what a basis moves, it moves with the price.
_PRICED = ("sma_", "ema_", "bb_", "macd", "atr_", "high_", "low_")


def _where(country: str, symbol: str) -> list[tuple[str, str, Any]]:
    return [("symbol", "=", symbol), ("country", "=", country)]


def history(view: LakeView, country: str, symbol: str, raw: bool = False) -> pd.DataFrame:
    """The traded bars by date with every indicator, oldest first.

    Columns: date, market, open, high, low, close, volume, value, flags, provisional, change (from the bar before, a
    fraction, always adjusted), and the indicators. ``raw``: prices as they were traded on their day, volumes too, and
    what is on the price's scale moved to it; else split-adjusted. Days without trade are no bars.
    """

    def build() -> pd.DataFrame:
        rows = view.of_share("prices", country, symbol)[_BARS]
        rows = rows[rows["volume"] > 0].sort_values("date", ignore_index=True)
        until = _adjusted_to(view, country, rows)
        known = view.read("actions", None, [*_where(country, symbol), ("ex_date", "<=", until)]).to_dict("records")
        lacking, applied = factors_of(list(rows["date"]), list(rows["basis"]), known)
        rows["change"] = (rows["close"] * lacking).pct_change(fill_method=None)
        scale = 1 / applied if raw else lacking
        for column in ("open", "high", "low", "close"):
            rows[column] = rows[column] * scale
        rows["volume"] = rows["volume"].astype(float) / scale
        chosen = [c for c in view.columns("indicators") if c not in _NOT_INDICATORS]
        found = view.of_share("indicators", country, symbol)[["date", *chosen]]
        rows = rows.merge(found, on="date", how="left")
        if raw:
            moved = scale / lacking
            for column in (c for c in chosen if c.startswith(_PRICED)):
                rows[column] = rows[column] * moved
        return rows.drop(columns="basis")

    return view.memo(
        ["prices", "actions", "indicators", "live_state"], ("history", country, symbol, raw), build, _HISTORIES
    )


def _adjusted_to(view: LakeView, country: str, rows: pd.DataFrame) -> date:
    """Up to when splits are in the indicators: one that is only announced is not."""
    known = [state["as_of"] for share, state in states(view).items() if share.startswith(f"{country}:")]
    return max([*known, *rows["date"], *rows["basis"].dropna()], default=date.min)


_NOT_INDICATORS = {"country", "symbol", "date", "market", "close", "volume", "filter_state"}


def actions(view: LakeView, country: str, symbol: str) -> pd.DataFrame:
    """ex_date, kind, factor, amount, confirmed, evidence: newest first."""
    columns = ["ex_date", "kind", "factor", "amount", "confirmed", "evidence"]
    return view.frame("actions", columns, _where(country, symbol)).sort_values("ex_date", ascending=False)


def fired(view: LakeView, country: str, symbol: str) -> pd.DataFrame:
    """The archived signals of the share with what they were worth: signal_id, signal_type, session, timestamp,
    trigger_price, direction, return_1/5/20 (null while open), newest first."""
    columns = ["signal_id", "signal_type", "session", "timestamp", "trigger_price"]
    rows = view.frame("signals", columns, _where(country, symbol))
    worth = view.frame(
        "signal_performance",
        ["signal_id", "direction", "return_1", "return_5", "return_20"],
        _where(country, symbol),
    )
    return rows.merge(worth, on="signal_id", how="left").sort_values("timestamp", ascending=False, ignore_index=True)


def memberships(view: LakeView, country: str, symbol: str) -> pd.DataFrame:
    """(list, date, rank) of every session on which the share stood on a watchlist, newest first."""
    rows = view.frame("watchlist", ["list", "date", "rank"], _where(country, symbol))
    return rows.sort_values(["date", "list"], ascending=[False, True], ignore_index=True)


def states(view: LakeView) -> Mapping[str, dict[str, Any]]:
    """live_state's rows by share (KR:005930), nulls as None."""

    def build() -> dict[str, dict[str, Any]]:
        if not view.exists("live_state"):
            return {}
        rows = view.reader.rows("live_state").to_pylist()
        return {f"{row['country']}:{row['symbol']}": row for row in rows}

    return view.memo(["live_state"], "states", build)


def levels(view: LakeView, registry: Registry, rules: LiveRules, share: str) -> list[Level]:
    """At which price each live rule would fire for the share in the next session; empty where it has no state."""
    state = states(view).get(share)
    if state is None or state.get("close") is None:
        return []
    with np.errstate(all="ignore"):
        return view.memo(["live_state"], ("levels", share, rules.version), lambda: levels_of(registry, rules, state))


def levels_of_many(
    view: LakeView, registry: Registry, rules: LiveRules, shares: Sequence[str], seconds: float
) -> tuple[dict[str, list[Level]], bool]:
    """The levels of as many of ``shares`` as can be had in ``seconds`` (those found before cost nothing), and whether
    these are all: a page fills in the others when it looks again."""
    found: dict[str, list[Level]] = {}
    end = time.monotonic() + seconds
    for share in shares:
        if time.monotonic() > end:
            return found, False
        found[share] = levels(view, registry, rules, share)
    return found, True


def holding(view: LakeView, registry: Registry, rule: LiveRule) -> tuple[int, int] | None:
    """(the shares for which a live rule holds at their last close, the shares with a state); None where that depends
    on the volume so far, or on an indicator that live_state does not have yet."""
    if needs_volume(rule):
        return None

    def build() -> dict[str, np.ndarray]:
        rows = view.read("live_state").dropna(subset=["close"])
        return {c: rows[c].to_numpy(float) for c in rows if pd.api.types.is_numeric_dtype(rows[c])}

    columns = view.memo(["live_state"], "state_columns", build)
    if "close" not in columns:
        return 0, 0
    try:
        holds = strict_at(registry, rule, columns, columns["close"])
    except KeyError:
        return None
    return int(np.sum(holds)), len(columns["close"])


def nearest(levels: list[Level] | None) -> dict[str, Level | None]:
    """The trigger level next below the last close and next above it, of the rules that can still fire there."""
    known = [x for x in levels or () if x.price is not None and x.away is not None and not x.now]
    below = max((x for x in known if x.away is not None and x.away < 0), key=lambda x: x.away or 0, default=None)
    above = min((x for x in known if x.away is not None and x.away >= 0), key=lambda x: x.away or 0, default=None)
    return {"below": below, "above": above}
