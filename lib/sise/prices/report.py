"""The data quality report: every flagged bar by name, with the likely cause where there is evidence for one.

Evidence is a corporate action, the exchange's reference price, or a change in listed shares. Without any of these
the cause is "unknown": the price alone only shows a pattern, which has a column of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sise.columns import by_country
from sise.prices.actions import SHARES_TOLERANCE, with_share_change
from sise.prices.adjust import with_adjustment

__all__ = ["CHECKS", "quality_report"]

CHECKS = ("jump", "unconfirmed_action", "no_trade", "rounded")
_DAYS_AROUND = 10


def quality_report(prices: DataFrame, actions: DataFrame, symbols: DataFrame, limits: Mapping[str, float]) -> DataFrame:
    """Rows (country, symbol, date, check, previous_date, previous_close, close, change, likely_cause, pattern).

    ``previous_…`` are of the traded bar before, prices as stored; ``change`` is from it, as a fraction, on a common
    basis. ``likely_cause`` is given for jumps: "unknown" where nothing tells. One row for each bar and check.
    """
    traded = F.col("volume") > 0
    # Traded bars are a partition of their own, so that lag steps over the days without trade.
    order = Window.partitionBy("symbol", "country", "_traded").orderBy("date")
    rows = (
        with_adjustment(prices, actions)
        .withColumn("_traded", traded)
        .withColumn("_close", F.col("close") * F.col("adjustment"))
        .withColumn("previous_date", F.lag("date").over(order))
        .withColumn("previous_close", F.lag("close").over(order))
        .withColumn("change", F.col("_close") / F.lag("_close").over(order) - 1)
    )
    found = (
        rows.where(F.size("flags") > 0).select("*", F.explode("flags").alias("check")).where(F.col("check") != "glitch")
    )
    found = _with_action(with_share_change(found, symbols), actions)
    judged = F.col("check").isin("jump", "unconfirmed_action")
    return found.select(
        "country",
        "symbol",
        "date",
        "check",
        *[F.when(F.col("_traded"), F.col(c)).alias(c) for c in ("previous_date", "previous_close")],
        "close",
        F.when(F.col("_traded"), F.col("change")).alias("change"),
        F.when(judged, _cause(limits)).alias("likely_cause"),
        F.when(judged, _pattern()).alias("pattern"),
    )


def _with_action(rows: DataFrame, actions: DataFrame) -> DataFrame:
    """Adds ``_action``: the price-changing action between the bar before and this one, if any, in words."""
    events = actions.where((F.col("kind") != "dividend") & F.col("factor").isNotNull()).select(
        "country",
        "symbol",
        "ex_date",
        F.concat_ws(
            "",
            F.col("kind"),
            F.lit(" × "),
            F.round("factor", 6).cast("string"),
            F.lit(" on "),
            F.col("ex_date").cast("string"),
            F.when(~F.col("confirmed"), F.lit(", unconfirmed")),
            F.when(F.col("applied_by_source"), F.lit(", applied by the source")),
        ).alias("_words"),
    )
    lists = events.groupBy("country", "symbol").agg(
        F.sort_array(F.collect_list(F.struct("ex_date", "_words"))).alias("_events")
    )
    rows = rows.join(F.broadcast(lists), on=["country", "symbol"], how="left")
    between = F.filter(
        "_events",
        lambda e: (
            (e["ex_date"] <= F.col("date"))
            & (e["ex_date"] > F.coalesce(F.col("previous_date"), F.date_sub("date", _DAYS_AROUND)))
        ),
    )
    return rows.withColumn("_action", F.get(between, F.lit(0))["_words"])


def _cause(limits: Mapping[str, float]) -> Column:
    limit = by_country(limits, "double")
    change = 1 + F.col("change")
    reference = F.col("reference").isNotNull() & (F.abs(F.col("close") / F.col("reference") - 1) <= limit)
    # What is left is a day's move, and less than what the share count tells: 12 % more shares make no -55 %.
    left = F.abs(F.col("shares_change") * change - 1) <= F.greatest(limit, F.lit(SHARES_TOLERANCE))
    explained = left & (F.abs(F.ln("shares_change")) >= F.abs(F.ln(change)) / 2)
    return F.coalesce(
        F.when(F.col("_action").isNotNull(), F.concat(F.lit("corporate action: "), F.col("_action"))),
        F.when(
            reference,
            F.format_string(
                "corporate action: reference price %.2f after close %.2f", F.col("reference"), F.col("previous_close")
            ),
        ),
        F.when(
            explained,
            F.concat(
                F.lit("listed shares × "),
                F.round("shares_change", 4).cast("string"),
                F.when(F.col("shares_change") > 1, F.lit(": split or bonus issue")).otherwise(
                    F.lit(": capital reduction or reverse split")
                ),
            ),
        ),
        F.lit("unknown"),
    )


def _pattern() -> Column:
    return F.coalesce(
        F.when(F.array_contains("flags", "glitch"), F.lit("reverts on the next bar: looks like a vendor's glitch")),
        F.when(
            F.date_diff("date", "previous_date") > _DAYS_AROUND,
            F.concat(F.lit("first trade after "), F.date_diff("date", "previous_date").cast("string"), F.lit(" days")),
        ),
    )
