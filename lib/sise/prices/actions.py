"""Corporate actions that the exchange's reference price gives away.

KRX quotes each bar's change against its reference price. Where the reference is not the previous close, something
happened overnight: factor = reference / previous close (Samsung 2018-05-04: 53,000 = 2,650,000 / 50). After a
reduction the reference can be the opening auction, so the change in listed shares decides; what it does not
confirm stays unconfirmed, and is judged again with every run that sees the bar.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
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
    """Rows of sources.base.ACTIONS for reference prices that no action in ``known`` explains, with the bar's ``date``
    and ``takes_back``: whether the ``unknown`` action that was said of that day before is to go. ``kind`` is null in a
    row that only takes back; ``ex_date`` is the bar's date, or that of the announcement whose factor it gives.

    ``bars``: prices of each share in a row, unadjusted ones only (``basis`` = ``date``) carry a usable reference.
    It is the close of the session before, so nothing is said across a hole in the bars, nor where the bar before has
    later actions in it already. ``sessions``: columns.numbered_sessions. An action counts for the first bar on or after
    its ex-date, which may be no session (a Saturday); of one that fell into a halt the exchange's reference may
    know only when trade goes on.
    """
    order = Window.partitionBy("symbol", "country").orderBy("date")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    rows = bars.join(F.broadcast(sessions), on=["country", "date"], how="inner")
    rows = rows.withColumn("_before", F.lag(F.struct("close", "basis", "n", "date")).over(order))
    traded = F.last(F.when(F.col("volume") > 0, F.col("date")), ignorenulls=True).over(before)
    rows = rows.withColumn("_traded", F.coalesce(traded, "_before.date"))
    rows = rows.withColumn("_previous", F.col("_before.close")).where(
        F.col("reference").isNotNull()
        & (F.col("basis") == F.col("date"))
        & (F.col("_before.n") == F.col("n") - 1)
        & (F.col("_before.basis") < F.col("date"))
    )
    rows = rows.join(F.broadcast(_told(known)), on=["country", "symbol"], how="left")
    day, last, halted = F.col("date"), F.col("_before.date"), F.col("_traded")

    def due(since: Column, until: Column) -> Column:
        return F.filter("_told", lambda a: (a["ex_date"] > since) & (a["ex_date"] <= until))

    # Without a factor, or with one that is doubted: the reference price then gives it.
    def announced(a: Column) -> Column:
        return (a["factor"].isNull() | ~a["confirmed"]) & (a["kind"] != "unknown")

    def as_said(a: Column) -> Column:
        return F.struct(a["kind"], a["ex_date"], F.when(~a["open"], a["factor"]).alias("said"))

    rows = rows.withColumn("_known", _product(due(last, day))).withColumn("_missed", _product(due(halted, last)))
    waiting = F.transform(F.filter(due(halted, day), announced), as_said)
    rows = rows.withColumn("_announcement", F.get(F.sort_array(waiting), F.lit(0)))
    rows = rows.withColumn("_announced", F.col("_announcement.kind"))
    # Of two actions on a day, one of which has its factor, the reference price gives the other's.
    expected = F.col("_previous") * F.coalesce("_known", F.lit(1.0))
    rows = rows.withColumn("factor", F.col("reference") / expected)
    # within one tick it is the exchange's own rounding
    tick = tick_column(F.col("country"), expected)
    moved = F.abs(F.col("reference") - expected) > tick
    moved &= F.coalesce(F.abs(F.col("reference") - expected * F.col("_missed")) > tick, F.lit(True))
    guessed = F.exists("_told", lambda a: (a["ex_date"] == day) & a["open"] & (a["kind"] == "unknown"))
    guessed, explained = F.coalesce(guessed, F.lit(False)), F.col("_known").isNotNull()
    rows = rows.withColumn("_found", moved & (~explained | F.col("_announced").isNotNull()))
    rows = rows.where(F.col("_found") | guessed)
    rows = with_share_change(rows, symbols)
    # A share count moves a little for many reasons: it explains a factor only if it leaves less than half of it.
    left = F.abs(F.col("shares_change") * F.col("factor") - 1)
    by_shares = left <= F.least(F.lit(SHARES_TOLERANCE), F.abs(F.col("factor") - 1) / 2)
    as_announced = F.coalesce(F.abs(F.col("_announcement.said") / F.col("factor") - 1) <= SHARES_TOLERANCE, F.lit(True))
    by_source = F.col("_announced").isNotNull() & (F.col("_announced") != "reduction") & as_announced
    confirmed = (F.coalesce(by_shares, F.lit(False)) & F.col("_known").isNull()) | by_source
    kind = (
        F.when(~F.col("_found"), F.lit(None))
        .when(F.col("_announced").isNotNull(), F.col("_announced"))
        .when(~confirmed, F.lit("unknown"))
        .when(F.col("factor") < 1, F.lit("split"))
        .otherwise(F.lit("reduction"))
    )
    found = rows.select(
        "country",
        "symbol",
        "date",
        F.when(F.col("_found"), F.coalesce("_announcement.ex_date", "date")).otherwise(F.col("date")).alias("ex_date"),
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
    # An announcement gets one factor, from the first bar that tells it; a bar after that is judged again with it.
    first = F.row_number().over(Window.partitionBy("country", "symbol", "ex_date", "kind").orderBy("date"))
    return found.withColumn("_n", first).withColumn("kind", F.when(F.col("_n") == 1, F.col("kind"))).drop("_n")


def _told(known: DataFrame) -> DataFrame:
    """(country, symbol, _told): each share's actions that change prices, as an array; ``open``: said here before, and
    confirmed by nothing yet."""
    told = known.where(f"kind <> 'dividend' AND NOT {WITHDRAWN}")
    ours = F.coalesce(F.col("evidence").startswith(_REFERENCE), F.lit(False))
    open_ = (~F.col("confirmed") & ours).alias("open")
    entry = F.struct("ex_date", "kind", "factor", "confirmed", open_)
    return told.groupBy("country", "symbol").agg(F.collect_list(entry).alias("_told"))


def _product(actions: Column) -> Column:
    """Of the confirmed ones' factors; null where there is none. What is doubted explains nothing."""
    sure = F.filter(actions, lambda a: a["confirmed"] & a["factor"].isNotNull())
    return F.when(F.size(sure) > 0, F.aggregate(sure, F.lit(1.0), lambda product, a: product * a["factor"]))


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
