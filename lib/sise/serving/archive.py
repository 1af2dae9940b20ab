"""The fired signals from Kafka into the lake."""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

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
    position to lose, and a month of signals is little. Of two signals of one id (a rehearsal with topics of its own has
    the ids of the session it plays) the archive keeps the one it has, and says so."""
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
            kept = lake.read("signals").select("signal_id", F.struct("timestamp", "trigger_price").alias("_kept"))
            rows = hold(signals_of(messages).join(kept, "signal_id", "left"))
            outcome.rows_in = rows.count()
            new = rows.where("_kept IS NULL").drop("_kept")
            other = rows.where("_kept <> struct(timestamp, trigger_price)").count()
            outcome.rows_out = lake.merge("signals", new).inserted
    outcome.say(f"{outcome.rows_in} signals in Kafka, {outcome.rows_out} new in the archive")
    outcome.details["other"] = other
    if other:
        outcome.say(
            f"{other} are not archived: the archive has others of the same ids, of other topics (SISE_TOPIC_PREFIX) or "
            "from before Redis was emptied. A rehearsal is archived in a lake of its own: SISE_LAKE"
        )
    return outcome
