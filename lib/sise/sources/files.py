"""Bars and symbols from parquet or CSV files: columns symbol, date, open, high, low, close, volume.

Optional columns: market, value (traded value), reference; adj_close is accepted and not stored, because cash
dividends change no stored price. CSV is read as text, so ``NA`` stays a ticker and ``000020`` keeps its zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from sise.calendars import MARKETS, ZONES, normal_market
from sise.errors import InputError
from sise.sources.base import ACTIONS, BARS, INDICES, SYMBOLS, Request, shape_of
from sise.sources.folders import SURPLUS, files_of, frames_of, shown

__all__ = ["FilesSource"]

_NUMBERS = ("open", "high", "low", "close", "volume", "value", "reference")
_REQUIRED = ("symbol", "date", "open", "high", "low", "close", "volume")
_COMPACT = (r"^(\d{4})(\d{2})(\d{2})$", "$1-$2-$3")
# A day, with its time or without, as pandas, DuckDB, PostgreSQL and Java write it; UTC, or another zone behind it.
_TIME = r"[T ]([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d+)?)?"
_UTC = r"(?i)\s*(Z|UTC|GMT|[+-]00(:?00)?)(\[[A-Z/_]+\])?$"
_DAY = rf"^(\d{{4}}-\d{{1,2}}-\d{{1,2}})({_TIME}\s*([+-]\d{{2}}(:?\d{{2}})?(\[[A-Za-z/_]+\])?)?)?$"
_FLAGS = ("is_etf", "is_warning", "is_administration", "is_halted")
_MOST = 1e18  # of a market cap in won, and of listed shares


class FilesSource:
    """``path``: a file or folder. ``market``: of every symbol; ``market_map``: a file with columns symbol, market,
    which goes before it; ``basis``: the date as of which the prices are split-adjusted (None: not adjusted)."""

    name = "files"
    whole_listing = False
    partial = True  # what a file has no column for, it takes back from no share
    states_basis = True
    todays_market = False

    def __init__(self, path: str, market: str | None = None, market_map: str | None = None, basis: date | None = None):
        self.path, self.market, self.market_map, self.basis = path, market, market_map, basis

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        markets = self._mapped(spark)
        rows = reduce(
            DataFrame.unionByName, [self._bars(frame, markets) for frame in self._read(spark, self.path, _REQUIRED)]
        )
        if request.markets:  # a row of no known market stays: it must reach the quarantine
            rows = rows.where(F.col("market").isin(list(request.markets)) | F.col("country").isNull())
        if request.start is not None:
            rows = rows.where((F.col("date") >= F.lit(request.start)) | F.col("date").isNull())
        if request.end is not None:
            rows = rows.where((F.col("date") <= F.lit(request.end)) | F.col("date").isNull())
        return rows.select(*shape_of(BARS).names)

    def _bars(self, frame: DataFrame, markets: DataFrame | None) -> DataFrame:
        self.todays_market = self.todays_market or "market" not in frame.columns
        rows, market = self._market(frame, markets)
        problems = [_unreadable(rows, c, "a number", _number(rows, c)) for c in _NUMBERS]
        day = _date(rows, "date", _country(market))
        problems += [_unreadable(rows, "date", "a date", day), _no_code(_symbol(), _country(market)), _surplus(rows)]
        return rows.select(
            _country(market).alias("country"),
            _symbol().alias("symbol"),
            day.alias("date"),
            market.alias("market"),
            *[_number(rows, c).alias(c) for c in _NUMBERS],
            (F.greatest(F.lit(self.basis), day) if self.basis else day).alias("basis"),
            F.lit(False).alias("provisional"),
            F.nullif(F.concat_ws("; ", *problems), F.lit("")).alias("problem"),
        )

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        markets = self._mapped(spark)
        needed = ("symbol",) if self.market or self.market_map else ("symbol", "market")
        rows = reduce(
            DataFrame.unionByName,
            [self._symbols(frame, markets, request.end) for frame in self._read(spark, self.path, needed)],
        )
        if request.markets:
            rows = rows.where(F.col("market").isin(list(request.markets)))
        # Of bars, which have a row a day, the newest; a listing's own row goes before them.
        share = Window.partitionBy("country", "symbol", "valid_from")
        newest = F.row_number().over(share.orderBy(F.col("_day").desc_nulls_first()))
        rows = rows.distinct().withColumn("_n", newest).where("_n = 1 OR _day IS NULL")
        twice = rows.groupBy("country", "symbol", "valid_from").count().where("count > 1").limit(5).collect()
        if twice:
            names = ", ".join(row["symbol"] for row in twice)
            raise InputError(f"{self.path} names a share more than once: {names}: leave one row, or give valid_from")
        return rows.select(*shape_of(SYMBOLS).names)

    def _symbols(self, frame: DataFrame, markets: DataFrame | None, end: date | None) -> DataFrame:
        rows, market = self._market(frame, markets)
        rows = rows.where(_symbol() != "")
        wrong = (
            rows.select(market.alias("market")).where(_country(F.col("market")).isNull()).distinct().limit(5).collect()
        )
        if wrong:
            names = ", ".join(repr(row["market"]) for row in wrong)
            raise InputError(f"{self.path}: unknown market {names}: use {', '.join(MARKETS)}")
        found = {"market_cap": _number(rows, "market_cap"), "listed_shares": _number(rows, "listed_shares")}
        nothing = F.lit(None).cast("date")
        found["valid_from"] = _date(rows, "valid_from", _country(market)) if "valid_from" in rows.columns else nothing
        for flag in (*_FLAGS, "active"):
            found[flag] = (F.col(flag) if flag in rows.columns else F.lit(None)).try_cast("boolean")
        kinds = {"market_cap": "a number", "listed_shares": "a number", "valid_from": "a date like 2026-01-31"}
        said = [_unreadable(rows, c, kinds.get(c, "true or false"), value) for c, value in found.items()]
        for c in ("market_cap", "listed_shares"):
            absurd = (found[c] < 0) | ((found[c] >= _MOST) & ~F.isnan(found[c]))
            said.append(F.when(absurd, F.concat(F.lit(f"{c} '"), found[c].cast("string"), F.lit("' cannot be"))))
            found[c] = F.when(~F.isnan(found[c]), found[c])  # pandas' and polars' way to have none
        said += [_no_code(_symbol(), _country(market)), _surplus(rows)]
        why = F.concat(_symbol(), F.lit(": "), F.coalesce(*said)).alias("said")
        if bad := rows.select(why).where("said IS NOT NULL").limit(5).collect():
            raise InputError(f"{_name(frame, self.path)}: {'; '.join(row['said'] for row in bad)}")
        bars = {"date", "close"} <= set(rows.columns)
        return rows.select(
            _country(market).alias("country"),
            _symbol().alias("symbol"),
            F.coalesce(found["valid_from"], F.lit(end).cast("date")).alias("valid_from"),
            (F.col("name") if "name" in rows.columns else F.lit(None)).cast("string").alias("name"),
            market.alias("market"),
            found["market_cap"].alias("market_cap"),
            found["listed_shares"].try_cast("bigint").alias("listed_shares"),
            *[found[flag].alias(flag) for flag in _FLAGS],
            # A listing names who is listed; a share that has bars may have left since.
            (found["active"] if bars else F.coalesce(found["active"], F.lit(True))).alias("active"),
            (_date(rows, "date", _country(market)) if bars else nothing).alias("_day"),
        )

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], ACTIONS)

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        return spark.createDataFrame([], INDICES)

    def _mapped(self, spark: SparkSession) -> DataFrame | None:
        """(symbol, mapped_market) of the map, if there is one."""
        if not self.market_map:
            return None
        known = reduce(
            DataFrame.unionByName,
            [
                frame.select(_symbol().alias("symbol"), _named(F.col("market")).alias("mapped_market")).where(
                    "symbol <> '' AND mapped_market <> ''"
                )
                for frame in self._read(spark, self.market_map, ("symbol", "market"))
            ],
        ).distinct()
        if twice := known.groupBy("symbol").count().where("count > 1").limit(5).collect():
            names = ", ".join(row["symbol"] for row in twice)
            raise InputError(f"{self.market_map} gives more than one market for {names}")
        return known

    def _market(self, rows: DataFrame, mapped: DataFrame | None) -> tuple[DataFrame, Column]:
        """The rows with what the market's name is taken from, and that name: the file's own, the map's, the default."""
        candidates = [F.col("market").cast("string")] if "market" in rows.columns else []
        if mapped is not None:
            rows = rows.withColumn("symbol", _symbol()).join(F.broadcast(mapped), on="symbol", how="left")
            candidates.append(F.col("mapped_market"))
        if self.market:
            candidates.append(F.lit(self.market))
        if not candidates:
            raise InputError(
                f"{self.path} does not say which market a symbol is on: give --market {'|'.join(MARKETS)}, "
                "or --market-map FILE with columns symbol, market"
            )
        return rows, _named(F.coalesce(*[F.nullif(c, F.lit("")) for c in candidates]))

    def _read(self, spark: SparkSession, path: str, required: Sequence[str]) -> list[DataFrame]:
        """A frame for each form of the files: those of one have the same columns, of the same types."""
        found = files_of(spark, path)
        if not found:
            raise InputError(f"{path} holds no .parquet or .csv file: give a file or a folder of them")
        frames = [frame for kind in sorted(found) for frame in frames_of(spark, kind, found[kind])]
        for n, frame in enumerate(frames):
            names = [name.strip().lower() for name in frame.columns]
            if twice := _named_twice(names):
                raise InputError(f"{_name(frame, path)} has more than one column {', '.join(twice)}: leave one")
            frames[n] = frame = frame.toDF(*names)
            if missing := [c for c in required if c not in frame.columns]:
                has = ", ".join(c for c in frame.columns if c != SURPLUS) or "none"
                raise InputError(f"{_name(frame, path)} lacks the column {', '.join(missing)}: it has {has}")
            kind_ = frame.schema["symbol"].dataType
            if not isinstance(kind_, T.StringType) and frame.isEmpty():  # pandas gives columns without a value no type
                frames[n] = frame.withColumn("symbol", F.lit(None).cast("string"))
            elif not isinstance(kind_, T.StringType):
                raise InputError(
                    f"{_name(frame, path)}: symbol is {kind_.simpleString()}, not text, so 000020 has become 20: write "
                    "the column as strings"
                )
        return frames


def _named_twice(names: Sequence[str]) -> list[str]:
    """Names that columns share, in whatever letters. Of a CSV Spark has put each one's place behind it."""
    known = {*shape_of(BARS).names, *shape_of(SYMBOLS).names}
    plain = [name.removesuffix(str(at)) if name[-1:].isdigit() else name for at, name in enumerate(names)]
    return sorted({name for name in plain if plain.count(name) > 1 and name in known})


def _name(frame: DataFrame, path: str) -> str:
    """The file that a frame is of, and how many more of the same form there are."""
    files = sorted(frame.inputFiles())
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return f"{shown(files[0])}{more}" if files else path


def _named(market: Column) -> Column:
    """A market's name as sise has it."""
    name = F.upper(F.trim(market.cast("string")))
    return F.when(name.startswith("KOSDAQ"), F.lit(normal_market("KOSDAQ GLOBAL"))).otherwise(name)


def _symbol() -> Column:
    """The share's code in capitals, without what spreadsheets put around it: spaces, tabs, ="005930"."""
    return F.upper(F.regexp_replace("symbol", r"^[\s=\"]+|[\s\"]+$", ""))


def _no_code(symbol: Column, country: Column) -> Column:
    """Null, or why a text is none of KRX's codes, but what a spreadsheet, pandas or a vendor makes of one: it would be
    stored as a share of its own."""
    wrong = symbol.rlike("^([0-9]{1,5}|[0-9]{7,}|A[0-9]{6}|KR[0-9A-Z]{10}|NAN|NONE|NULL|.*[^0-9A-Z_].*)$")
    told = F.concat(F.lit("symbol '"), symbol, F.lit("' is no KRX code of six characters, like 005930"))
    return F.when((country == "KR") & wrong, told)


def _surplus(rows: DataFrame) -> Column:
    """Null, or the row that has more fields than there are columns."""
    if SURPLUS not in rows.columns:
        return F.lit(None).cast("string")
    return F.concat(F.lit("more fields than columns: "), F.substring(SURPLUS, 1, 200))


def _number(rows: DataFrame, column: str) -> Column:
    """Null where there is none. Java also reads 1d and 1f, as 1."""
    if column not in rows.columns:
        return F.lit(None).cast("double")
    number = F.col(column).try_cast("double")
    is_text = isinstance(rows.schema[column].dataType, T.StringType)
    return F.when(~F.col(column).rlike(r"(?i)[0-9.][df]\s*$"), number) if is_text else number


def _date(rows: DataFrame, column: str, country: Column) -> Column:
    """A date, or a moment of the day that is meant; numbers are YYYYMMDD, or pandas' nanoseconds."""
    kind, value = rows.schema[column].dataType, F.col(column)
    if isinstance(kind, T.NumericType):
        number = value.try_cast("bigint")
        compact = F.regexp_replace(number.cast("string"), *_COMPACT).try_cast("date")
        moment = F.timestamp_micros((number / 1000).cast("bigint"))
        return F.when(number.between(18000101, 99991231), compact).otherwise(_day_of(moment, country))
    if isinstance(kind, T.StringType):
        text = F.trim(column)
        day = F.regexp_extract(F.regexp_replace(text, *_COMPACT), _DAY, 1).try_cast("date")
        moment = F.concat(F.regexp_replace(text, _UTC, ""), F.lit("Z")).try_cast("timestamp")
        return F.when(text.rlike(_TIME + _UTC), _day_of(moment, country)).otherwise(day)
    if isinstance(kind, T.TimestampType):
        return _day_of(value, country)
    return value.try_cast("date")


def _day_of(moment: Column, country: Column) -> Column:
    """Midnight where the share trades is that day there: a date with a zone is kept in UTC, and Seoul's midnight is the
    evening before. Any other moment is of the day that it names."""
    zone = F.lit(None).cast("string")
    for code, known in ZONES.items():
        zone = F.when(country == code, F.lit(known.key)).otherwise(zone)
    there = F.from_utc_timestamp(moment, zone)
    return F.when(there == F.date_trunc("day", there), there.cast("date")).otherwise(moment.cast("date"))


def _unreadable(rows: DataFrame, column: str, what: str, read: Column) -> Column:
    """Null, or why the text in ``column`` is not ``what``."""
    if column not in rows.columns:
        return F.lit(None).cast("string")
    text = F.col(column).cast("string")
    return F.when(
        text.isNotNull() & ~F.trim(text).isin("", "-") & read.isNull(),  # KRX's way to say that there is none
        F.concat(F.lit(f"{column} '"), text, F.lit(f"' is not {what}")),
    )


def _country(market: Column) -> Column:
    country = F.lit(None).cast("string")
    for name, code in MARKETS.items():
        country = F.when(market == name, F.lit(code)).otherwise(country)
    return country
