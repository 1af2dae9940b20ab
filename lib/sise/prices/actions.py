"""Corporate actions that the exchange's reference price gives away.

KRX quotes each bar's change against its reference price. Where the reference is not the previous close, something
happened overnight: factor = reference / previous close (Samsung 2018-05-04: 53,000 = 2,650,000 / 50). After a
reduction the reference can be the opening auction, so the change in listed shares decides; what it does not
confirm stays unconfirmed, and is judged again with every run that sees the bar.
"""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sise.prices.unsettled import WITHDRAWN
from sise.ticks import tick_column

__all__ = ["SHARES_TOLERANCE", "actions_from_reference", "with_share_change"]

# How the evidence of what is said here begins.
_REFERENCE = "reference "

# Listed shares after a split rarely match the factor to the share (fractions are paid out).
SHARES_TOLERANCE = 0.05
_DAYS_APART = 10


def actions_from_reference(bars: DataFrame, symbols: DataFrame, known: DataFrame, sessions: DataFrame) -> DataFrame:
    """Rows of sources.base.ACTIONS for reference prices that no action in ``known`` explains, with ``takes_back``:
    whether the ``unknown`` action that was said of this day before is to go. ``kind`` is null in a row that only
    takes back.

    ``bars``: prices of each share in a row, unadjusted ones only (``basis`` = ``date``) carry a usable reference.
    It is the close of the session before, so nothing is said across a hole in the bars, nor where the bar before has
    later actions in it already. ``sessions``: columns.numbered_sessions.
    """
    order = Window.partitionBy("symbol", "country").orderBy("date")
    rows = bars.join(F.broadcast(sessions), on=["country", "date"], how="inner")
    rows = rows.withColumn("_before", F.lag(F.struct("close", "basis", "n")).over(order))
    rows = rows.withColumn("_previous", F.col("_before.close")).where(
        F.col("reference").isNotNull()
        & (F.col("basis") == F.col("date"))
        & (F.col("_before.n") == F.col("n") - 1)
        & (F.col("_before.basis") < F.col("date"))
    )
    on = ["country", "symbol", "date"]
    told = known.where(f"kind <> 'dividend' AND NOT {WITHDRAWN}").withColumnRenamed("ex_date", "date")
    ours = F.coalesce(F.col("evidence").startswith(_REFERENCE), F.lit(False))
    told = told.withColumn("_open", ~F.col("confirmed") & ours)
    said = told.groupBy(*on).agg(
        F.product(F.when(~F.col("_open"), F.col("factor"))).alias("_known"),
        # What a source announced without a factor, which the reference price then gives.
        F.min(F.when((F.col("factor").isNull() | F.col("_open")) & (F.col("kind") != "unknown"), F.col("kind"))).alias(
            "_announced"
        ),
        F.bool_or(F.col("_open") & (F.col("kind") == "unknown")).alias("_guessed"),
    )
    rows = rows.join(F.broadcast(said), on=on, how="left")
    # Of two actions on a day, one of which has its factor, the reference price gives the other's.
    expected = F.col("_previous") * F.coalesce("_known", F.lit(1.0))
    rows = rows.withColumn("factor", F.col("reference") / expected)
    # within one tick it is the exchange's own rounding
    moved = F.abs(F.col("reference") - expected) > tick_column(F.col("country"), expected)
    guessed, explained = F.coalesce("_guessed", F.lit(False)), F.col("_known").isNotNull()
    rows = rows.withColumn("_found", moved & (~explained | F.col("_announced").isNotNull()))
    rows = rows.where(F.col("_found") | guessed)
    rows = with_share_change(rows, symbols)
    # A share count moves a little for many reasons: it explains a factor only if it leaves less than half of it.
    left = F.abs(F.col("shares_change") * F.col("factor") - 1)
    by_shares = left <= F.least(F.lit(SHARES_TOLERANCE), F.abs(F.col("factor") - 1) / 2)
    by_source = F.col("_announced").isNotNull() & (F.col("_announced") != "reduction")
    confirmed = (F.coalesce(by_shares, F.lit(False)) & F.col("_known").isNull()) | by_source
    kind = (
        F.when(~F.col("_found"), F.lit(None))
        .when(F.col("_announced").isNotNull(), F.col("_announced"))
        .when(~confirmed, F.lit("unknown"))
        .when(F.col("factor") < 1, F.lit("split"))
        .otherwise(F.lit("reduction"))
    )
    return rows.select(
        "country",
        "symbol",
        F.col("date").alias("ex_date"),
        kind.alias("kind"),
        "factor",
        F.lit(None).cast("double").alias("amount"),
        F.lit(None).cast("boolean").alias("applied_by_source"),
        confirmed.alias("confirmed"),
        F.format_string(
            _REFERENCE + "%.4f after close %.4f; listed shares × %s",
            F.col("reference"),
            F.col("_previous"),
            F.coalesce(F.round("shares_change", 4).cast("string"), F.lit("unknown")),
        ).alias("evidence"),
        (guessed & (F.coalesce(kind, F.lit("")) != "unknown")).alias("takes_back"),
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
