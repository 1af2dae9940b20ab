"""Columns and small frames that more than one room needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.calendars import Calendar

__all__ = ["by_country", "numbered_sessions", "stamped"]


def by_country(values: Mapping[str, object], kind: str) -> Column:
    """The value of the row's ``country``, as ``kind``; null for a country that has none."""
    found = F.lit(None).cast(kind)
    for country, value in values.items():
        found = F.when(F.col("country") == country, F.lit(value)).otherwise(found)
    return found


def numbered_sessions(spark: SparkSession, calendars: Mapping[str, Calendar], first: date, last: date) -> DataFrame:
    """(country, date, n): the sessions from ``first`` to ``last``, ``n`` their place among all that the exchange's
    calendar knows. Two sessions' numbers differ by the sessions between them."""
    days = [
        (country, day, number)
        for country, calendar in calendars.items()
        for number, day in enumerate(calendar.days)
        if first <= day <= last
    ]
    return spark.createDataFrame(days, "country string, date date, n int").coalesce(1)


def stamped(rows: DataFrame, source: str) -> DataFrame:
    """Adds ``source`` and ``collected_at``, as the tables have them."""
    return rows.withColumn("source", F.lit(source)).withColumn("collected_at", F.current_timestamp())
