"""The one interface that every source meets, and the shape of what it hands over.

A source hands over what it was given, unjudged: dates and numbers it could not read are null and say so in
``problem``; prices/quality.py decides what enters the lake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

__all__ = ["ACTIONS", "BARS", "INDICES", "SYMBOLS", "Request", "Source", "shape_of"]

# market: null where the source does not say. basis: the date up to which splits are already in the prices.
BARS = (
    "country string, symbol string, date date, market string, open double, high double, low double, "
    "close double, volume double, value double, reference double, basis date, provisional boolean, problem string"
)
SYMBOLS = (
    "country string, symbol string, valid_from date, name string, market string, market_cap double, "
    "listed_shares bigint, is_etf boolean, is_warning boolean, is_administration boolean, is_halted boolean, "
    "active boolean"
)
ACTIONS = (
    "country string, symbol string, ex_date date, kind string, factor double, amount double, "
    "applied_by_source boolean, confirmed boolean, evidence string"
)
INDICES = "index string, date date, open double, high double, low double, close double, volume double"


def shape_of(ddl: str) -> T.StructType:
    """The type that one of the shapes above names."""
    shape = T.StructType.fromDDL(ddl)
    assert isinstance(shape, T.StructType)
    return shape


@dataclass(frozen=True)
class Request:
    """What is asked of a source: markets (empty: all it has) and the first and last session, both included."""

    markets: Sequence[str] = ()
    start: date | None = None
    end: date | None = None


class Source(Protocol):
    """``name`` goes into the tables; ``whole_listing`` says that symbols() names every share of its markets,
    so that one it no longer names has left the exchange. Where a source has them: ``partial`` (what its listing
    leaves null is not known, not gone), ``floor`` (the market cap from which it takes shares up), ``todays_market``
    (a bar's market may be one that the share had later)."""

    name: str
    whole_listing: bool

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        """Rows of SYMBOLS, one for each change of a share, each valid from its date."""

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        """Rows of BARS; duplicates and nonsense included."""

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        """Rows of ACTIONS with an ex-date in the span."""

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        """Rows of INDICES."""
