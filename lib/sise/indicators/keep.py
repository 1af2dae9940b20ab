"""What is kept of a share's last bars: their ``filter_state`` (batch.py) as rows of indicator_state and live_state."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sise.indicators.registry import Registry

__all__ = ["live_of", "newest_of", "state_columns", "states_of", "with_state"]

_SHARE = ["country", "symbol"]


def state_columns(registry: Registry) -> list[str]:
    return ["bars", "tail_from", *registry.state]


def with_state(rows: DataFrame) -> DataFrame:
    """The bars that carry a filter state, among them the last ones of every share."""
    return rows.where(F.col("filter_state").isNotNull()).select(
        *_SHARE, "date", "market", "close", "volume", "filter_state"
    )


def states_of(rows: DataFrame, registry: Registry) -> DataFrame:
    """indicator_state's rows out of ``filter_state``."""
    rows = rows.where(F.col("filter_state").isNotNull())
    return rows.select(*_SHARE, "date", *[F.col(f"filter_state.{c}").alias(c) for c in state_columns(registry)])


def newest_of(rows: DataFrame, count: int) -> DataFrame:
    """Of each share the last ``count`` rows."""
    newest = Window.partitionBy("symbol", "country").orderBy(F.col("date").desc())
    return rows.withColumn("_n", F.row_number().over(newest)).where(F.col("_n") <= count).drop("_n").coalesce(1)


def live_of(rows: DataFrame, registry: Registry) -> DataFrame:
    """live_state's rows out of the ``filter_state`` of each share's last bar."""
    last = newest_of(rows.where(F.col("filter_state").isNotNull()), 1)
    names = [*registry.core, *registry.ingredients]
    live = {name: F.col("filter_state.live")[i] for i, name in enumerate(names)}
    live |= {c: F.col(f"filter_state.{c}") for c in state_columns(registry) if c not in live}
    return last.select(
        *_SHARE,
        "market",
        "close",
        "volume",
        F.col("date").alias("as_of"),
        F.lit(registry.hash).alias("registry_hash"),
        *[value.alias(name) for name, value in live.items()],
    )
