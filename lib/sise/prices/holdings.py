"""What the lake has, as the plan of a run needs to know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.prices.symbols import newest_listing
from sise.sources.plan import Held

__all__ = ["active_shares", "held_days", "held_shares"]


def active_shares(symbols: DataFrame, markets: Sequence[str]) -> list[tuple[str, str, str]]:
    """(country, market, symbol) of the shares that are active by their newest row, largest first. ETFs are none."""
    rows = (
        newest_listing(symbols)
        .where("active AND NOT coalesce(is_etf, false)")
        .where(F.col("market").isin(list(markets)))
        .orderBy(F.col("market_cap").desc_nulls_last(), "country", "symbol")
    )
    return [(r["country"], r["market"], r["symbol"]) for r in rows.select("country", "market", "symbol").collect()]


def held_shares(prices: DataFrame, countries: Sequence[str], calendars: Mapping[str, Calendar]) -> dict[str, Held]:
    """By share (KR:005930): first and last session, those between that are missing, the first provisional one."""
    rows = prices.where(F.col("country").isin(list(countries)))
    spans = rows.groupBy("country", "symbol").agg(
        F.min("date").alias("first"),
        F.max("date").alias("last"),
        F.count(F.lit(1)).alias("n"),
        F.min(F.when(F.col("provisional"), F.col("date"))).alias("open"),
    )
    held, lacking = {}, []
    for row in spans.collect():
        key = f"{row['country']}:{row['symbol']}"
        held[key] = Held(row["first"], row["last"], open=row["open"])
        if row["n"] < len(calendars[row["country"]].between(row["first"], row["last"])):
            lacking.append((row["country"], row["symbol"]))
    if lacking:
        some = rows.sparkSession.createDataFrame(lacking, "country string, symbol string")
        dates = (
            rows.join(F.broadcast(some), on=["country", "symbol"], how="left_semi")
            .groupBy("country", "symbol")
            .agg(F.collect_set("date").alias("dates"))
        )
        for row in dates.toLocalIterator():
            key = f"{row['country']}:{row['symbol']}"
            there, known = set(row["dates"]), held[key]
            sessions = calendars[row["country"]].between(known.first, known.last)
            held[key] = replace(known, holes=tuple(day for day in sessions if day not in there))
    return held


def held_days(prices: DataFrame, markets: Sequence[str]) -> tuple[dict[str, dict[date, int]], dict[str, list[date]]]:
    """By market: how many bars each session has, and the sessions that have provisional ones."""
    rows = prices.where(F.col("market").isin(list(markets))).groupBy("market", "date")
    counts: dict[str, dict[date, int]] = {}
    provisional: dict[str, list[date]] = {}
    for row in rows.agg(F.count(F.lit(1)).alias("n"), F.max(F.col("provisional")).alias("open")).collect():
        counts.setdefault(row["market"], {})[row["date"]] = row["n"]
        if row["open"]:
            provisional.setdefault(row["market"], []).append(row["date"])
    return counts, provisional
