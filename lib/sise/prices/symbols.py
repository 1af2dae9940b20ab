"""A source's listing into ``symbols``: a row for each change of a share, none where nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from sise.columns import by_country, stamped
from sise.errors import InputError
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.session import Hold, described
from sise.sources.base import Request, Source

__all__ = ["collect_symbols", "newest_listing"]

# A listing of fewer shares may change by any part.
_ENOUGH = 50


def collect_symbols(
    spark: SparkSession, lake: Lake, source: Source, request: Request, today: Mapping[str, date]
) -> Outcome:
    """Merges a source's listing into ``symbols``: a row for each change, none where nothing changed. ``today``: by
    country, from when what has no date of its own holds."""
    with Hold() as hold:
        with described(spark, f"symbols: read {source.name}"):
            known = lake.read("symbols")
            rows = source.symbols(spark, request)
            rows = rows.withColumn("valid_from", F.coalesce("valid_from", by_country(today, "date")))
            if (floor := getattr(source, "floor", None)) is not None:
                rows = _taken_up(rows, known, floor)
            rows = hold(rows)
            _refuse_to_come(rows, max(today.values()), source.name)
            count = rows.count()
        if getattr(source, "partial", False):
            rows = hold(_with_known(rows, known))
        new = _select_changes(rows, known)
        if source.whole_listing:
            gone = hold(_select_gone(rows, known, today))
            _believe(gone, known, getattr(source, "shrink_limit", 1.0), source.name)
            new = new.unionByName(gone)
        with described(spark, "symbols: merge changes"):
            written = lake.merge("symbols", hold(stamped(new, source.name)))
            active = lake.read("symbols").select("country", "symbol").distinct().count()
    outcome = Outcome(rows_in=count, rows_out=written.changed, details={"symbols": active})
    outcome.say(f"{count} rows from {source.name}: {written.inserted} changes stored, {active} shares known")
    return outcome


_SYMBOL_VALUES = (
    "name",
    "market",
    "market_cap",
    "listed_shares",
    "is_etf",
    "is_warning",
    "is_administration",
    "is_halted",
    "active",
)


def _select_changes(rows: DataFrame, known: DataFrame) -> DataFrame:
    """Of ``rows``, those that say something other than the row before them, stored or new."""
    share = Window.partitionBy("country", "symbol").orderBy("valid_from", "_stored")
    content = F.struct(*_SYMBOL_VALUES)
    both = rows.withColumn("_stored", F.lit(1)).unionByName(known.select(*rows.columns).withColumn("_stored", F.lit(0)))
    before = F.lag(content).over(share)
    return (
        both.withColumn("_same", F.coalesce(before == content, F.lit(False)) | before.eqNullSafe(content))
        .where((F.col("_stored") == 1) & ~F.col("_same"))
        .drop("_stored", "_same")
    )


def _select_gone(rows: DataFrame, known: DataFrame, today: Mapping[str, date]) -> DataFrame:
    """A closing row for each active share that a whole listing no longer names."""
    last = newest_listing(known).where("active")
    last = last.join(rows.select("market").distinct(), on="market", how="left_semi")
    gone = last.join(rows.select("country", "symbol").distinct(), on=["country", "symbol"], how="left_anti")
    gone = gone.withColumn("valid_from", by_country(today, "date"))
    return gone.withColumn("active", F.lit(False)).select(*rows.columns)


def _taken_up(rows: DataFrame, known: DataFrame, floor: float) -> DataFrame:
    """The shares with a market cap of ``floor`` or more, and those that are active already."""
    there = newest_listing(known).where("active").select("country", "symbol", F.lit(True).alias("_there"))
    rows = rows.join(there, on=["country", "symbol"], how="left")
    return rows.where((F.col("market_cap") >= floor) | F.col("_there")).drop("_there")


def newest_listing(known: DataFrame) -> DataFrame:
    """Of each share's rows the newest."""
    share = Window.partitionBy("country", "symbol").orderBy(F.col("valid_from").desc())
    return known.withColumn("_n", F.row_number().over(share)).where("_n = 1").drop("_n")


def _with_known(rows: DataFrame, known: DataFrame) -> DataFrame:
    """What a listing does not say (null) is what it was until its day, stored or said by an earlier row: a vendor
    without a flag takes none back. What became known after that day says nothing of it. A share of which nobody said
    otherwise is active."""
    filled = [c for c in _SYMBOL_VALUES if c != "market"]
    share = Window.partitionBy("country", "symbol").orderBy("valid_from", "_stored")
    both = rows.withColumn("_stored", F.lit(1)).unionByName(known.select(*rows.columns).withColumn("_stored", F.lit(0)))
    both = both.withColumn("_of", F.sum(1 - F.col("_stored")).over(share))  # the stored row that it comes after
    before = Window.partitionBy("country", "symbol", "_of").orderBy("valid_from", "_stored")
    told = {c: F.last(c, ignorenulls=True).over(before) for c in filled}
    told["active"] = F.coalesce(told["active"], F.lit(True))
    return both.withColumns(told).where("_stored = 1").select(*rows.columns)


def _refuse_to_come(rows: DataFrame, today: date, source: str) -> None:
    """Raises InputError for a listing of a day that has not come: it would hold at once."""
    if bad := rows.where(F.col("valid_from") > F.lit(today)).orderBy("valid_from", "symbol").limit(5).collect():
        names = ", ".join(f"{row['symbol']} from {row['valid_from']}" for row in bad)
        raise InputError(f"{source} lists shares as of a day after {today}: {names}: collect them when it has come")


def _believe(gone: DataFrame, known: DataFrame, limit: float, source: str) -> None:
    """Raises InputError where a listing lost so much of a market that it rather broke off."""
    active = newest_listing(known).where("active")
    counts = {r["market"]: r["count"] for r in active.groupBy("market").count().collect()}
    for row in gone.groupBy("market").count().collect():
        if (there := counts[row["market"]]) >= _ENOUGH and row["count"] > limit * there:
            raise InputError(
                f"{source}'s listing of {row['market']} lacks {row['count']} of the {there} shares known: it is not "
                "believed; run again later, or raise SISE_SHRINK_LIMIT if they have left indeed"
            )
