"""Adjusted prices are derived, never stored: stored price × the factors of what happened after its basis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.columns import by_country

__all__ = ["adjusted_prices", "applied_of", "product_of", "with_actions", "with_adjustment"]

_PRICES = ("open", "high", "low", "close")


def adjusted_prices(prices: DataFrame, actions: DataFrame, as_of: date | Mapping[str, date] | None = None) -> DataFrame:
    """Split-adjusted bars as of a date (default: everything in ``actions``).

    In: ``prices`` and ``actions`` as the lake has them. Out: the same columns; open, high, low, close and
    reference × Π factor, volume (now double) ÷ the same product, value and flags untouched. An action counts for a
    bar dated before its ex-date when the ex-date is after the bar's ``basis``; ``applied_by_source`` goes before
    ``basis``. Only confirmed actions count, and cash dividends change no price. ``as_of`` leaves out actions with a
    later ex-date; a mapping gives a date for each country.
    """
    adjusted = with_adjustment(prices, actions, as_of)
    by = F.col("adjustment")
    new = {c: F.col(c) * by for c in (*_PRICES, "reference") if c in prices.columns}
    new["volume"] = F.col("volume").cast("double") / by
    return adjusted.select(*[new[c].alias(c) if c in new else F.col(c) for c in prices.columns])


def with_adjustment(prices: DataFrame, actions: DataFrame, as_of: date | Mapping[str, date] | None = None) -> DataFrame:
    """Adds ``adjustment``: what a stored price is to be multiplied by (1.0 where nothing happened)."""
    return with_actions(prices, actions, as_of).withColumn("adjustment", product_of("_actions")).drop("_actions")


def with_actions(prices: DataFrame, actions: DataFrame, as_of: date | Mapping[str, date] | None = None) -> DataFrame:
    """Adds ``_actions``: the share's price-changing, confirmed actions as an array, null where it has none."""
    events = actions.where(F.col("factor").isNotNull() & (F.col("kind") != "dividend") & F.col("confirmed"))
    if isinstance(as_of, Mapping):
        events = events.where(F.col("ex_date") <= by_country(as_of, "date"))
    elif as_of is not None:
        events = events.where(F.col("ex_date") <= F.lit(as_of))
    lists = events.groupBy("country", "symbol").agg(
        F.sort_array(F.collect_list(F.struct("ex_date", "factor", "applied_by_source"))).alias("_actions")
    )
    return prices.join(F.broadcast(lists), on=["country", "symbol"], how="left")


def product_of(array: str, date_column: str = "date", basis_column: str = "basis") -> Column:
    """Π factor over the actions in ``array`` that a bar of that date and basis still lacks, in order of ex-date."""
    return _product(array, date_column, lambda action: ~_applied(action, basis_column))


def applied_of(array: str, date_column: str = "date", basis_column: str = "basis") -> Column:
    """Π factor over the later actions that a bar of that date and basis already has: the price as it was traded on
    its own day is the stored one ÷ this."""
    return _product(array, date_column, lambda action: _applied(action, basis_column))


def _applied(action: Column, basis_column: str) -> Column:
    told = action["applied_by_source"]
    return F.when(told.isNotNull(), told).otherwise(action["ex_date"] <= F.col(basis_column))


def _product(array: str, date_column: str, counts: Callable[[Column], Column]) -> Column:
    return F.when(F.col(array).isNull(), F.lit(1.0)).otherwise(
        F.aggregate(
            F.filter(array, lambda a: (a["ex_date"] > F.col(date_column)) & counts(a)),
            F.lit(1.0),
            lambda product, a: product * a["factor"],
        )
    )
