"""Fired signals out of Kafka into the lake, each id once."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

__all__ = ["signals_of"]

_FIELDS = """id string, signal_type string, country string, market string, symbol string, session string,
timestamp bigint, trigger_price double, indicators map<string,double>, rule_version string, as_of string,
day_volume bigint, partition int, offset bigint, state_version bigint, label string"""


def signals_of(messages: DataFrame) -> DataFrame:
    """Rows of the table signals from stock-signals' messages (columns value, timestamp), the first of each id.

    A message without id, share, session, time or a positive price is no signal and is left out.
    """
    parsed = messages.select(F.from_json(F.col("value").cast("string"), _FIELDS).alias("s"), "timestamp")
    good = parsed.where(
        "s.id IS NOT NULL AND s.country IS NOT NULL AND s.symbol IS NOT NULL AND s.timestamp IS NOT NULL"
    )
    good = good.where("try_to_date(s.session) IS NOT NULL AND s.trigger_price > 0 AND s.signal_type IS NOT NULL")
    first = Window.partitionBy("s.id").orderBy("timestamp")
    good = good.withColumn("_n", F.row_number().over(first)).where("_n = 1")
    return good.select(
        F.col("s.id").alias("signal_id"),
        *[F.col(f"s.{c}").alias(c) for c in ("country", "market", "symbol", "signal_type")],
        F.to_date("s.session").alias("session"),
        F.timestamp_millis("s.timestamp").alias("timestamp"),
        *[F.col(f"s.{c}").alias(c) for c in ("trigger_price", "indicators", "rule_version", "day_volume")],
        F.to_date("s.as_of").alias("as_of"),
        F.col("s.partition").alias("tick_partition"),
        F.col("s.offset").alias("tick_offset"),
        "s.state_version",
        F.nullif("s.label", F.lit("")).alias("label"),
    )
