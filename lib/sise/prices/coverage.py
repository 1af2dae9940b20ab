"""Are the bars of all shares there? Bars of the active shares known against their number, per market and session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.calendars import COUNTRIES, Calendar
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.gaps import tell_gaps
from sise.prices.quality import active_bars, active_counts
from sise.session import Hold, described

__all__ = ["sessions_of", "tell_coverage"]


def sessions_of(spark: SparkSession, calendars: Mapping[str, Calendar], first: date, last: date) -> DataFrame:
    """(country, date) of every exchange's sessions, both days included."""
    days = [(country, day) for country in COUNTRIES for day in calendars[country].between(first, last)]
    return spark.createDataFrame(days, "country string, date date").coalesce(1)


def tell_coverage(
    spark: SparkSession,
    lake: Lake,
    calendars: Mapping[str, Calendar],
    low: date,
    high: date,
    floor: float,
    outcome: Outcome,
) -> None:
    """Tells ``outcome`` which part of the shares known has bars, and how many sessions from ``low`` to ``high`` are
    below ``floor``; and of sessions before ``high`` without any bar (gaps.py)."""
    span = (F.col("date") >= F.lit(low)) & (F.col("date") <= F.lit(high))
    with described(spark, "prices: coverage against the symbols known"), Hold() as hold:
        symbols = lake.read("symbols")
        bars = active_bars(lake.read("prices").where(span), symbols)
        bars = bars.groupBy("market", "date").agg(F.count(F.lit(1)).alias("bars"))
        counts = active_counts(symbols, sessions_of(spark, calendars, low, high))
        # A session of which no bar is there at all lacks them too, between the first and the last one that has some.
        spans = bars.groupBy("market").agg(F.min("date").alias("_first"), F.max("date").alias("_last"))
        rows = counts.where(span & (F.col("known") > 0)).join(bars, on=["market", "date"], how="left")
        rows = rows.join(F.broadcast(spans), on="market").where(F.col("date").between(F.col("_first"), F.col("_last")))
        rows = hold(rows.withColumn("coverage", F.coalesce("bars", F.lit(0)) / F.col("known")))
        latest = rows.groupBy("market").agg(F.max_by("coverage", "date").alias("coverage")).collect()
        below = rows.where(F.col("coverage") < floor).groupBy("market")
        lacking = below.agg(F.count(F.lit(1)).alias("n"), F.min("date"), F.max("date")).collect()
    outcome.details["coverage"] = {row["market"]: round(row["coverage"], 4) for row in latest}
    if not latest:
        outcome.say("coverage: no symbols are known; run jobs/collect_symbols.py to have it checked")
    for row in lacking:
        outcome.say(
            f"coverage: {row['market']} has bars for less than {floor:.0%} of its shares on {row['n']} sessions from "
            f"{row[2]} to {row[3]}"
        )
    outcome.details["sessions_below_coverage"] = {row["market"]: row["n"] for row in lacking}
    tell_gaps(lake.arrow, calendars, dict.fromkeys(calendars, high), outcome)
