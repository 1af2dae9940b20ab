"""Columns that more than one room needs."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F

__all__ = ["by_country"]


def by_country(values: Mapping[str, object], kind: str) -> Column:
    """The value of the row's ``country``, as ``kind``; null for a country that has none."""
    found = F.lit(None).cast(kind)
    for country, value in values.items():
        found = F.when(F.col("country") == country, F.lit(value)).otherwise(found)
    return found
