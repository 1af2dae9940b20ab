"""Bars and symbols from parquet or CSV files: columns symbol, date, open, high, low, close, volume.

Optional columns: market, value (traded value), reference; adj_close is accepted and not stored, because cash
dividends change no stored price. CSV is read as text, so ``NA`` stays a ticker and ``000020`` keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sise.calendars import MARKETS, normal_market
from sise.errors import InputError
from sise.sources.base import ACTIONS, BARS, INDICES, SYMBOLS, Request, shape_of

__all__ = ["FilesSource"]

_NUMBERS = ("open", "high", "low", "close", "volume", "value", "reference")
_REQUIRED = ("symbol", "date", "open", "high", "low", "close", "volume")
_FLAGS = ("is_etf", "is_warning", "is_administration", "is_halted")


class FilesSource:
    """``path``: a file or folder. ``market``: of every symbol; ``market_map``: a file with columns symbol, market,
    which goes before it; ``basis``: the date as of which the prices are split-adjusted (None: not adjusted)."""

    name = "files"
    whole_listing = False

    def __init__(self, path: str, market: str | None = None, market_map: str | None = None, basis: date | None = None):
        self.path, self.market, self.market_map, self.basis = path, market, market_map, basis

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        rows = self._read(spark, self.path, _REQUIRED)
        rows, market = self._market(spark, rows)
        problems = [_unreadable(rows, c, "a number", _number(rows, c)) for c in _NUMBERS]
        problems.append(_unreadable(rows, "date", "a date", _date(rows, "date")))
        day = _date(rows, "date")
        rows = rows.select(
            _country(market).alias("country"),
            F.trim("symbol").alias("symbol"),
            day.alias("date"),
            market.alias("market"),
            *[_number(rows, c).alias(c) for c in _NUMBERS],
            (F.greatest(F.lit(self.basis), day) if self.basis else day).alias("basis"),
            F.lit(False).alias("provisional"),
            F.nullif(F.concat_ws("; ", *problems), F.lit("")).alias("problem"),
        )
        if request.markets:  # a row of no known market stays: it must reach the quarantine
            rows = rows.where(F.col("market").isin(list(request.markets)) | F.col("country").isNull())
        if request.start is not None:
            rows = rows.where((F.col("date") >= F.lit(request.start)) | F.col("date").isNull())
        if request.end is not None:
            rows = rows.where((F.col("date") <= F.lit(request.end)) | F.col("date").isNull())
        return rows.select(*shape_of(BARS).names)

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        rows = self._read(spark, self.path, ("symbol",) if self.market or self.market_map else ("symbol", "market"))
        rows, market = self._market(spark, rows)
        wrong = (
            rows.select(market.alias("market")).where(_country(F.col("market")).isNull()).distinct().limit(5).collect()
        )
        if wrong:
            names = ", ".join(repr(row["market"]) for row in wrong)
            raise InputError(f"{self.path}: unknown market {names}: use {', '.join(MARKETS)}")

        def optional(column: str, kind: str, default: object = None) -> Column:
            found = F.col(column).try_cast(kind) if column in rows.columns else F.lit(None).cast(kind)
            return F.coalesce(found, F.lit(default).cast(kind)).alias(column)

        rows = (
            rows.where(F.trim("symbol") != "")
            .select(
                _country(market).alias("country"),
                F.trim("symbol").alias("symbol"),
                optional("valid_from", "date", request.end),
                optional("name", "string"),
                market.alias("market"),
                optional("market_cap", "double"),
                optional("listed_shares", "bigint"),
                *[optional(flag, "boolean", False) for flag in _FLAGS],
                optional("active", "boolean", True),
            )
            .select(*shape_of(SYMBOLS).names)
        )
        if request.markets:
            rows = rows.where(F.col("market").isin(list(request.markets)))
        twice = rows.groupBy("country", "symbol", "valid_from").count().where("count > 1").limit(5).collect()
        if twice:
            raise InputError(f"{self.path} names a share more than once: {', '.join(row['symbol'] for row in twice)}")
        return rows

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], ACTIONS)

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], INDICES)

    def _market(self, spark: SparkSession, rows: DataFrame) -> tuple[DataFrame, Column]:
        """The rows with what the market's name is taken from, and that name: the file's own, the map's, the default."""
        candidates = [F.col("market").cast("string")] if "market" in rows.columns else []
        if self.market_map:
            known = (
                self._read(spark, self.market_map, ("symbol", "market"))
                .select(F.trim("symbol").alias("symbol"), F.col("market").cast("string").alias("mapped_market"))
                .distinct()
            )
            twice = known.groupBy("symbol").count().where("count > 1").limit(5).collect()
            if twice:
                names = ", ".join(row["symbol"] for row in twice)
                raise InputError(f"{self.market_map} gives more than one market for {names}")
            rows = rows.withColumn("symbol", F.trim("symbol")).join(F.broadcast(known), on="symbol", how="left")
            candidates.append(F.col("mapped_market"))
        if self.market:
            candidates.append(F.lit(self.market))
        if not candidates:
            raise InputError(
                f"{self.path} does not say which market a symbol is on: give --market {'|'.join(MARKETS)}, "
                "or --market-map FILE with columns symbol, market"
            )
        name = F.upper(F.trim(F.coalesce(*[F.nullif(c, F.lit("")) for c in candidates])))
        return rows, F.when(name.startswith("KOSDAQ"), F.lit(normal_market("KOSDAQ GLOBAL"))).otherwise(name)

    def _read(self, spark: SparkSession, path: str, required: Sequence[str]) -> DataFrame:
        kinds = _kinds(spark, path)
        if not kinds:
            raise InputError(f"{path} holds no .parquet or .csv file: give a file or a folder of them")
        frames = []
        for kind in sorted(kinds):
            reader = spark.read.option("recursiveFileLookup", "true")
            if kind != _suffix(path):
                reader = reader.option("pathGlobFilter", f"*.{kind}")
            if kind == "csv":
                reader = reader.option("header", "true").option("enforceSchema", "false")
            frame = reader.format(kind).load(path)
            frame = frame.toDF(*[name.strip().lower() for name in frame.columns])
            if missing := [c for c in required if c not in frame.columns]:
                raise InputError(f"{path} lacks the column {', '.join(missing)}: it has {', '.join(frame.columns)}")
            if not isinstance(frame.schema["symbol"].dataType, T.StringType):
                raise InputError(
                    f"{path}: symbol is {frame.schema['symbol'].dataType.simpleString()}, not text, so 000020 has "
                    "become 20: write the column as strings"
                )
            frames.append(frame)
        rows = frames[0]
        for frame in frames[1:]:
            rows = rows.unionByName(frame.select([F.col(c).cast("string") for c in frame.columns]), True)
        return rows


def _suffix(path: str) -> str:
    return path.rsplit(".", 1)[-1].lower() if "." in path.rsplit("/", 1)[-1] else ""


def _kinds(spark: SparkSession, path: str) -> set[str]:
    """Which of parquet and csv a path holds, through Hadoop's file systems, so that s3a:// works as a folder does."""
    if _suffix(path) in {"parquet", "csv"} and "*" not in path:
        kinds = {_suffix(path)}
    else:
        kinds = set()
    jvm = spark._jvm
    assert jvm is not None
    where = jvm.org.apache.hadoop.fs.Path(path)
    system = where.getFileSystem(spark._jsc.hadoopConfiguration())
    if not system.exists(where):
        raise InputError(f"{path} does not exist: --path takes a parquet or csv file, or a folder of them")
    if kinds and system.getFileStatus(where).isFile():
        return kinds
    found, entries = set(), system.listFiles(where, True)
    while entries.hasNext():
        found.add(_suffix(entries.next().getPath().getName()))
    return found & {"parquet", "csv"}


def _number(rows: DataFrame, column: str) -> Column:
    return F.col(column).try_cast("double") if column in rows.columns else F.lit(None).cast("double")


def _date(rows: DataFrame, column: str) -> Column:
    kind = rows.schema[column].dataType
    if isinstance(kind, T.LongType):  # pandas' nanosecond timestamps, read as numbers
        return F.timestamp_micros((F.col(column) / 1000).cast("bigint")).cast("date")
    if isinstance(kind, T.StringType):
        compact = F.regexp_replace(F.trim(column), r"^(\d{4})(\d{2})(\d{2})$", "$1-$2-$3")
        return compact.try_cast("date")
    return F.col(column).try_cast("date")


def _unreadable(rows: DataFrame, column: str, what: str, read: Column) -> Column:
    """Null, or why the text in ``column`` is not ``what``."""
    if column not in rows.columns:
        return F.lit(None).cast("string")
    text = F.col(column).cast("string")
    return F.when(
        text.isNotNull() & (F.trim(text) != "") & read.isNull(),
        F.concat(F.lit(f"{column} '"), text, F.lit(f"' is not {what}")),
    )


def _country(market: Column) -> Column:
    country = F.lit(None).cast("string")
    for name, code in MARKETS.items():
        country = F.when(market == name, F.lit(code)).otherwise(country)
    return country
