"""The fired signals from Kafka into the lake."""

from __future__ import annotations

from pyspark.sql import SparkSession

from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.serving.kafka import ensure_topics
from sise.session import Hold, described
from sise.settings import Settings
from sise.signals.archive import signals_of
from sise.topics import SIGNALS, topic_of

__all__ = ["archive_signals"]


def archive_signals(spark: SparkSession, lake: Lake, settings: Settings) -> Outcome:
    """stock-signals into the table signals. The whole topic is read each time and merged on the id: there is no
    position to lose, and a month of signals is little."""
    ensure_topics(settings)
    outcome = Outcome()
    with described(spark, "signals: archive what has fired"):
        messages = (
            spark.read.format("kafka")
            .option("kafka.bootstrap.servers", settings.kafka)
            .option("subscribe", topic_of(SIGNALS, settings.topic_prefix))
            .load()
        )
        with Hold() as hold:
            rows = hold(signals_of(messages))
            outcome.rows_in = rows.count()
            new = rows.join(lake.read("signals").select("signal_id"), "signal_id", "left_anti")
            outcome.rows_out = lake.merge("signals", hold(new)).inserted
    outcome.say(f"{outcome.rows_in} signals in Kafka, {outcome.rows_out} new in the archive")
    return outcome
