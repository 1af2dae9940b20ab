"""How signals turned out, from signal_summary and signal_performance, and what backtests found."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sise.dashboard.data.view import LakeView

__all__ = ["ALL", "HORIZONS", "backtests", "curve", "distribution", "extremes", "outcomes", "summary"]

ALL = "ALL"
HORIZONS = (1, 5, 20)


def summary(view: LakeView, horizon: int, market: str = ALL, month: str | None = ALL) -> pd.DataFrame:
    """Rows of signal_summary for one horizon and market (``month`` None: a row for each month), most cases first."""
    rows = view.frame("signal_summary", None, [("horizon", "=", horizon), ("market", "=", market)])
    rows = rows[rows["month"] == month] if month is not None else rows[rows["month"] != ALL]
    return rows.sort_values(["cases", "rule"], ascending=[False, True], ignore_index=True)


def outcomes(view: LakeView, horizon: int, rules: Sequence[str] = (), market: str = ALL) -> pd.DataFrame:
    """The signals that count at a horizon, oldest first: signal_id, rule, country, market, symbol, session, entry_date,
    entry_price, direction, return, market_return, excess, mfe, mae."""
    wanted = [f"return_{horizon}", f"market_return_{horizon}", f"excess_{horizon}"]
    columns = ["signal_id", "rule", "country", "market", "symbol", "session", "entry_date", "entry_price", "direction"]
    rows = view.frame("signal_performance", [*columns, "suspect", *wanted, "mfe", "mae"])
    rows = rows.rename(columns={f"{what}_{horizon}": what for what in ("return", "market_return", "excess")})
    keep = rows["return"].notna() & ~rows["suspect"].fillna(False).astype(bool)
    if rules:
        keep &= rows["rule"].isin(list(rules))
    if market != ALL:
        keep &= rows["market"] == market
    return rows[keep].drop(columns="suspect").sort_values(["session", "signal_id"], ignore_index=True)


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """The equity curve of ``outcomes``: on each session's signals the same sum is staked, split evenly among them, and
    taken out after the horizon; gains are added up, not compounded. Columns: session, cases, mean, market (what the
    index made in each rule's direction over the same days), equity and market_equity (both fractions of the stake; the
    market only over signals whose market has an index)."""
    if rows.empty:
        return pd.DataFrame(columns=["session", "cases", "mean", "market", "equity", "market_equity"])
    rows = rows.assign(same_side=rows["return"] - rows["excess"])
    by = rows.groupby("session").agg(cases=("return", "size"), mean=("return", "mean"), market=("same_side", "mean"))
    by["equity"] = by["mean"].cumsum()
    by["market_equity"] = by["market"].fillna(0.0).cumsum()
    return by.reset_index()


def distribution(rows: pd.DataFrame) -> dict[str, float]:
    """cases, hit_rate, mean, median, spread (sample standard deviation), p10, p90, excess, market_cases."""
    values = rows["return"].astype(float)
    if values.empty:
        return {"cases": 0}
    excess = rows["excess"].dropna().astype(float)
    return {
        "cases": len(values),
        "hit_rate": float((values > 0).mean()),
        "mean": float(values.mean()),
        "median": float(values.median()),
        "spread": float(values.std()) if len(values) > 1 else float("nan"),
        "p10": float(values.quantile(0.1)),
        "p90": float(values.quantile(0.9)),
        "excess": float(excess.mean()) if len(excess) else float("nan"),
        "market_cases": len(excess),
    }


def extremes(rows: pd.DataFrame, count: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best and the worst of ``outcomes``; one signal is never in both."""
    half = min(count, len(rows) // 2)
    ordered = rows.sort_values("return", ascending=False, kind="stable")
    return ordered.head(half), ordered.tail(half).iloc[::-1]


def backtests(view: LakeView) -> pd.DataFrame:
    """Every backtest kept, newest data first, with its figures over all markets and months at 5 sessions."""
    rows = view.frame("backtests")
    if rows.empty:
        return rows
    whole = rows[(rows["market"] == ALL) & (rows["month"] == ALL) & (rows["horizon"] == 5)]
    return whole.sort_values(["last_session", "rule"], ascending=[False, True], ignore_index=True)
