"""Corporate actions that the exchange's reference price gives away.

KRX quotes each bar's change against its reference price. Where the reference is not the previous close, something
happened overnight: factor = reference / previous close (Samsung 2018-05-04: 53,000 = 2,650,000 / 50). After a
reduction the reference can be the opening auction, so the change in listed shares decides; what it does not
confirm stays unconfirmed.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sise.ticks import tick_column

__all__ = ["SHARES_TOLERANCE", "actions_from_reference", "with_share_change"]

# Listed shares after a split rarely match the factor to the share (fractions are paid out).
SHARES_TOLERANCE = 0.05
_DAYS_APART = 10


def actions_from_reference(bars: DataFrame, symbols: DataFrame, known: DataFrame) -> DataFrame:
    """Rows of sources.base.ACTIONS for reference prices that no action in ``known`` explains.

    ``bars``: prices of each share in a row, unadjusted ones only (``basis`` = ``date``) carry a usable reference.
    """
    order = Window.partitionBy("symbol", "country").orderBy("date")
    rows = (
        bars.withColumn("_previous", F.lag("close").over(order))
        .where(F.col("reference").isNotNull() & F.col("_previous").isNotNull() & (F.col("basis") == F.col("date")))
        # within one tick it is the exchange's own rounding
        .where(F.abs(F.col("reference") - F.col("_previous")) > tick_column(F.col("country"), F.col("_previous")))
        .withColumn("factor", F.col("reference") / F.col("_previous"))
    )
    on = ["country", "symbol", "date"]
    told = known.where(F.col("kind") != "dividend").withColumnRenamed("ex_date", "date")
    explained = told.where(F.col("factor").isNotNull()).select(*on).distinct()
    # What a source announced without a factor, which the reference price then gives.
    announced = told.where(F.col("factor").isNull()).groupBy(*on).agg(F.min("kind").alias("_announced"))
    rows = rows.join(explained, on=on, how="left_anti").join(announced, on=on, how="left")
    rows = with_share_change(rows, symbols)
    by_shares = F.abs(F.col("shares_change") * F.col("factor") - 1) <= SHARES_TOLERANCE
    by_source = F.col("_announced").isNotNull() & (F.col("_announced") != "reduction")
    confirmed = F.coalesce(by_shares, F.lit(False)) | by_source
    return rows.select(
        "country",
        "symbol",
        F.col("date").alias("ex_date"),
        F.when(F.col("_announced").isNotNull(), F.col("_announced"))
        .when(~confirmed, F.lit("unknown"))
        .when(F.col("factor") < 1, F.lit("split"))
        .otherwise(F.lit("reduction"))
        .alias("kind"),
        "factor",
        F.lit(None).cast("double").alias("amount"),
        F.lit(None).cast("boolean").alias("applied_by_source"),
        confirmed.alias("confirmed"),
        F.format_string(
            "reference %.4f after close %.4f; listed shares × %s",
            F.col("reference"),
            F.col("_previous"),
            F.coalesce(F.round("shares_change", 4).cast("string"), F.lit("unknown")),
        ).alias("evidence"),
    )


def with_share_change(rows: DataFrame, symbols: DataFrame) -> DataFrame:
    """Adds ``shares_change``: by what listed shares were multiplied within ten days of the date; null if unknown."""
    order = Window.partitionBy("country", "symbol").orderBy("valid_from")
    changes = (
        symbols.where(F.col("listed_shares") > 0)
        .withColumn("_change", F.col("listed_shares") / F.lag("listed_shares").over(order))
        .where(F.col("_change") != 1)
        .groupBy("country", "symbol")
        .agg(F.collect_list(F.struct("valid_from", "_change")).alias("_changes"))
    )
    rows = rows.join(F.broadcast(changes), on=["country", "symbol"], how="left")
    near = F.filter("_changes", lambda c: F.abs(F.date_diff(c["valid_from"], F.col("date"))) <= _DAYS_APART)
    return rows.withColumn(
        "shares_change",
        F.when(F.size(F.coalesce(near, F.array())) > 0, F.aggregate(near, F.lit(1.0), lambda p, c: p * c["_change"])),
    ).drop("_changes")
