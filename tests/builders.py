"""Literal rows with defaults, so that a test states only what matters to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from sise.lake import Lake
from sise.sources.base import ACTIONS, BARS, INDICES, SYMBOLS, Request

__all__ = ["ListSource", "bar", "bars_frame", "put", "share", "walk"]


def bar(symbol: str = "000020", day: date | str = "2024-03-04", close: float = 1000.0, **other: Any) -> dict[str, Any]:
    """A traded KR bar whose open, high and low equal its close; ``basis`` is its own day."""
    day = date.fromisoformat(day) if isinstance(day, str) else day
    row = {
        "country": "KR",
        "symbol": symbol,
        "date": day,
        "market": "KOSPI",
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": 100.0,
        "value": None,
        "reference": None,
        "basis": day,
        "provisional": False,
        "problem": None,
    }
    unknown = set(other) - set(row)
    assert not unknown, unknown
    numbers = {"open", "high", "low", "close", "volume", "value", "reference"}
    return {k: float(v) if k in numbers and v is not None else v for k, v in (row | other).items()}


def share(symbol: str = "000020", since: date | str = "2020-01-02", **other: Any) -> dict[str, Any]:
    row = {
        "country": "KR",
        "symbol": symbol,
        "valid_from": date.fromisoformat(str(since)),
        "name": f"Share {symbol}",
        "market": "KOSPI",
        "market_cap": 5e12,
        "listed_shares": 1_000_000,
        "is_etf": False,
        "is_warning": False,
        "is_administration": False,
        "is_halted": False,
        "active": True,
    }
    assert set(other) <= set(row), other
    return row | other


def walk(symbol: str, days: Sequence[date], closes: Sequence[float], **other: Any) -> list[dict[str, Any]]:
    """A bar for each day; high and low 1 % around the close."""
    return [
        bar(symbol, day, float(c), open=float(c), high=float(c) * 1.01, low=float(c) * 0.99, **other)
        for day, c in zip(days, closes, strict=True)
    ]


def bars_frame(spark: SparkSession, rows: Sequence[dict[str, Any]]) -> DataFrame:
    return spark.createDataFrame(list(rows), BARS)


class ListSource:
    """A source of literal rows, for the collecting jobs."""

    def __init__(
        self,
        bars: Sequence[dict] = (),
        symbols: Sequence[dict] = (),
        actions: Sequence[dict] = (),
        name: str = "literal",
        whole_listing: bool = False,
    ):
        self.name, self.whole_listing = name, whole_listing
        self._rows = {"bars": (bars, BARS), "symbols": (symbols, SYMBOLS), "actions": (actions, ACTIONS)}

    def _frame(self, spark: SparkSession, kind: str) -> DataFrame:
        rows, schema = self._rows[kind]
        return spark.createDataFrame(list(rows), schema)

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        return self._frame(spark, "bars")

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        return self._frame(spark, "symbols")

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return self._frame(spark, "actions")

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], INDICES)


def action(
    symbol: str = "000020", ex_date: str = "2024-03-05", factor: float | None = 0.5, kind: str = "split", **other: Any
) -> dict[str, Any]:
    row = {
        "country": "KR",
        "symbol": symbol,
        "ex_date": date.fromisoformat(ex_date),
        "kind": kind,
        "factor": factor,
        "amount": None,
        "applied_by_source": None,
        "confirmed": True,
        "evidence": "test",
    }
    return row | other


def put(lake: Lake, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Literal rows straight into a table; what they do not name is null."""
    schema = lake.schema(name)
    lake.append(name, lake.spark.createDataFrame([{f: row.get(f) for f in schema.names} for row in rows], schema))
