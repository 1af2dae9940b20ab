"""The streaming queries: ticks in Kafka → detection → tick-rules and dead letters, and the latest prices."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from sise.calendars import COUNTRIES
from sise.console import tell
from sise.errors import SiseError
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.locks import alone, taken
from sise.serving.batches import MicroBatches
from sise.serving.ended import Outage, why_ended
from sise.serving.kafka import check_slots, ensure_topics, epoch_of_ticks, partitions_of
from sise.serving.missed import Missed
from sise.serving.prices import LatestPrices
from sise.serving.relay import RulesFile, publish
from sise.serving.sender import Sender
from sise.serving.signals import SignalStore, connect
from sise.settings import Settings
from sise.signals.curves import load_curves
from sise.signals.detect import (
    complaints_of_universe,
    detect_rules,
    lacking_columns,
    live_side,
    rules_and_prices,
    with_thresholds,
)
from sise.signals.judge import Clock, price_side, tick_prices
from sise.topics import DEAD, RULES, SIGNALS, TICKS, topic_of

__all__ = ["Detection"]


@dataclass
class Detection:
    """The queries of one detect_signals job."""

    spark: SparkSession
    lake: Lake
    registry: Registry
    settings: Settings
    trigger: str
    checkpoints: Path
    checkpoint_seconds: int = 300  # real-time mode: what a crash replays, and when new tables are read
    # Set while queries are stopped: a batch that waits for Redis or Kafka gives up then, and comes again.
    ending: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Checks what is needed, notes the rules in the lake and starts the queries."""
        self.file = RulesFile(self.settings.conf_file("watchlists.json"), self.registry)
        self.curves = load_curves(self.settings.conf_file("volume_curves.json"))
        if lacking := sorted(set(COUNTRIES) - set(self.curves)) if "session_share" in self.file.rules.names else ():
            tell(f"detect: conf/volume_curves.json has no {', '.join(lacking)}: no rule of volume so far fires there")
        self.lake.demand("live_state")
        self._check_columns()
        for complaint in complaints_of_universe(self.lake):
            tell(f"detect: {complaint}: run jobs/scan_watchlists.py")
        self.clock = Clock(
            int(self.settings.tick_ahead_seconds * 1000),
            int(self.settings.tick_behind_seconds * 1000),
            {"KR": self.settings.jump_limit_kr, "US": self.settings.jump_limit_us},
        )
        ensure_topics(self.settings)
        # A position is one in this life of the topic: one that was made anew is read from its beginning.
        self.epoch = epoch_of_ticks(self.settings)
        self.outage = Outage(self.settings, self.epoch)
        self.checkpoints = self.checkpoints / f"{topic_of(TICKS, self.settings.topic_prefix)}-{self.epoch}"
        self._lock = taken(self.checkpoints / "lock")
        if self._lock is None:
            raise SiseError(
                f"another detect_signals.py runs on the checkpoints in {self.checkpoints}: stop it, or give this one "
                "--checkpoints and a SISE_TOPIC_PREFIX of its own"
            )
        self._check_slots()
        self._note_rules()
        client, ending = connect(self.settings), self.ending.is_set
        self.prices = LatestPrices(client, self.settings, lambda: self.file.rules, self.epoch, ending)
        self.missed = Missed(self.spark, self.settings, self.prices, self._judge)
        if self.trigger != "realtime":
            self.store = SignalStore(client, self.settings, self.epoch)
            self.sender = Sender(self.settings, ending, linger_ms=0)
            publish(self.store, self.sender, topic_of(SIGNALS, self.settings.topic_prefix), self.store.unpublished())
        self._start_queries()

    def _start_queries(self) -> None:
        self.spark.sparkContext.setLogLevel("ERROR")
        self.outage.begun = time.monotonic()
        self.started_with = self._versions()  # before they are read: one too old is found out, one too new is not
        self.queries = self._start_realtime() if self.trigger == "realtime" else self._start_micro_batches()

    def _check_slots(self) -> None:
        if self.trigger == "realtime":
            context = self.spark.sparkContext
            check_slots(str(context.master), context.defaultParallelism, partitions_of(self.settings))

    def _check_columns(self) -> None:
        if lacking := lacking_columns(self.lake.arrow.columns("live_state"), self.registry, self.file.rules):
            needed = f"{', '.join(lacking)}, which the rules of {self.file.path} need"
            raise SiseError(f"live_state lacks {needed}: run jobs/compute_indicators.py")

    def stop(self) -> None:
        self._stop_queries()
        if self.trigger != "realtime":
            self.sender.close()

    def _stop_queries(self) -> None:
        self.ending.set()
        self.spark.sparkContext.setLogLevel("OFF")  # else each interrupted task tells an error
        for query in self.queries:
            query.stop()
        self.ending.clear()

    @property
    def details(self) -> dict[str, Any]:
        """Ticks read and batches done by each query, as its last progress tells."""
        found = {}
        for query in self.queries:
            last = query.lastProgress
            found[str(query.name)] = None if last is None else {"batch": last["batchId"], "rows": last["numInputRows"]}
        return {"trigger": self.trigger, "rules": self.file.rules.version, "queries": found}

    def watch(self) -> None:
        """To be called about once a second: raises what ended a query, takes up changed rules and tables. Where Kafka
        was away for too long for Spark, the queries start again once it answers."""
        ended = [(q.name, problem) for q in self.queries if (problem := q.exception()) is not None]
        if self.outdated:  # asked second: it may be why the query ended
            tell(f"detect: {' or '.join(self._tables)} has a new version: going on with it")
            self._restart()
        elif ended:
            name, problem = ended[0]
            if (back := self.outage.over(str(problem))) is None:
                raise SiseError(why_ended(str(name), str(problem), self.checkpoints)) from problem
            if back:
                self._restart()
        else:
            self.missed.follow()
        rules = self.file.rules
        if self.file.changed():
            try:
                self._check_columns()
            except SiseError as problem:
                self.file.rules = rules
                tell(f"the rules stay as they were: {problem}, then save the file again")
                return
            self._note_rules()
            if self.file.rules.shape != rules.shape:
                tell("detect: the rules look at something else now: the query starts again from its checkpoint")
                self._restart()
            else:
                tell(f"detect: thresholds changed (rules {self.file.rules.version}), taken up with the next batch")

    def _judge(self, ticks: DataFrame) -> DataFrame:
        return tick_prices(ticks, self._side, self.clock)

    def _restart(self) -> None:
        """Starts the queries, from where their checkpoints stand; what ran before has ended then."""
        self._stop_queries()
        self._check_slots()  # the topic may have more partitions now
        self._check_columns()
        self._start_queries()

    @property
    def _tables(self) -> tuple[str, ...]:
        """The tables whose new version starts the queries again. In real-time mode that replays what came since the
        last checkpoint, so that ticks of a session whose state came late are judged by it after all; thresholds are
        for the ticks to come, and wait for the checkpoint."""
        always = ("live_state", "universe", "actions")
        return always if self.trigger == "realtime" else (*always, "live_rules")

    def _versions(self) -> tuple[int, ...]:
        return tuple(self.lake.version(name) for name in self._tables)

    @property
    def outdated(self) -> bool:
        """Whether the running queries were started on tables that have moved on."""
        return self._versions() != self.started_with

    def _note_rules(self) -> None:
        """The rules in force, with every version that was before: live_rules. Another detection on this lake, with
        topics of its own, has its own, and may note them at the same moment."""
        rules, own = self.file.rules, self.settings.topic_prefix
        row = {
            "version": rules.version,
            "since": datetime.now(UTC),
            "current": True,
            "thresholds": {rule.name: rule.thresholds for rule in rules.rules},
            "rules": json.dumps(rules.as_json()),
            "topics": own,
        }
        with alone(self.settings.local / "state" / "live_rules.lock"):
            self.lake.ensure("live_rules")
            before = self.lake.read("live_rules").fillna("", ["topics"])
            mine = F.col("topics") == own
            if not before.where(mine & (F.col("version") == rules.version) & F.col("current")).count():
                new = self.spark.createDataFrame([row], self.lake.schema("live_rules"))
                kept = before.where(~mine | (F.col("version") != rules.version))
                kept = kept.withColumn("current", F.col("current") & ~mine)
                self.lake.replace("live_rules", kept.unionByName(new).coalesce(1))

    def live(self) -> DataFrame:
        """The broadcast side: shares as the tables have them now, thresholds as they are when a batch begins. In
        real-time mode that is the checkpoint: nothing is detected while tables are read, so only this one is."""
        universe = self.lake.read("universe") if self.lake.exists("universe") else None
        version, actions = self.lake.version("live_state"), self.lake.read("actions")
        state = self.lake.read("live_state", version)
        side = self._kept(live_side(state, version, actions, universe, self.registry, self.file.rules))
        own = F.coalesce("topics", F.lit("")) == self.settings.topic_prefix
        return with_thresholds(side, self.lake.read("live_rules").where(own), self.file.rules)

    def _ticks(self, **options: Any) -> DataFrame:
        reader = (
            self.spark.readStream.format("kafka")
            .option("kafka.bootstrap.servers", self.settings.kafka)
            .option("subscribe", topic_of(TICKS, self.settings.topic_prefix))
            .option("startingOffsets", "earliest")
            .option("failOnDataLoss", "true")
            .option("kafka.fetch.max.wait.ms", "20")
        )
        for key, value in options.items():
            reader = reader.option(key, value)
        return reader.load()

    def _start_realtime(self) -> list[StreamingQuery]:
        rules = self.file.rules
        found = detect_rules(self._ticks(), self.live(), self.registry, rules, self.curves, self.clock, self.epoch)
        topic = F.when(F.col("kind") == "dead", topic_of(DEAD, self.settings.topic_prefix)).otherwise(
            topic_of(RULES, self.settings.topic_prefix)
        )
        writer = (
            found.select(topic.alias("topic"), "key", "value")
            .writeStream.queryName("detect")
            .format("kafka")
            .option("kafka.bootstrap.servers", self.settings.kafka)
            # Else a request for each record: at 10,000 ticks/s that is what the cores do.
            .option("kafka.linger.ms", "3")
            .option("checkpointLocation", str(self.checkpoints / "detect-realtime"))
            .outputMode("update")
            .trigger(realTime=f"{self.checkpoint_seconds} seconds")  # type: ignore[call-overload]
        )
        self._side = self._kept(price_side(self.lake.read("live_state"), self.lake.read("actions")))
        # One task: it takes one of the slots that detection leaves.
        ticks = self._ticks(maxOffsetsPerTrigger=200_000).coalesce(1)
        return [writer.start(), self._start_batches(self._judge(ticks), "prices", "prices", 1, self.prices.write)]

    def _start_micro_batches(self) -> list[StreamingQuery]:
        """One query for both: the ticks are read, parsed and joined once."""
        ticks = self._ticks(maxOffsetsPerTrigger=100_000).coalesce(self.spark.sparkContext.defaultParallelism)
        self._side = live = self._kept(self.live())
        found = rules_and_prices(ticks, live, self.registry, self.file.rules, self.curves, self.clock, self.epoch)
        write = MicroBatches(self.store, self.sender, self.prices, self.file.rules, self.settings, self.ending.is_set)
        return [self._start_batches(found, "detect", "detect-micro-batch", 0, write)]

    def _kept(self, side: DataFrame) -> DataFrame:
        """A broadcast side computed once for each start of the queries, and kept by the driver, from where it is
        broadcast anyway: so it costs a batch no job, and no executor can lose it."""
        return self.spark.createDataFrame(side.toArrow(), side.schema)

    def _start_batches(
        self, rows: DataFrame, name: str, checkpoint: str, seconds: int, write: Callable[[pa.Table], None]
    ) -> StreamingQuery:
        """A query of micro-batches, each of which ``write`` gets whole.

        A batch that would be judged by tables that have moved on fails: the sides are computed once, and it comes
        again to the query that starts next."""

        def write_batch(batch: DataFrame, _: int) -> None:
            if self.outdated:
                raise SiseError("the tables have a new version: this batch waits for it")
            write(batch.toArrow())

        writer = rows.writeStream.queryName(name).option("checkpointLocation", str(self.checkpoints / checkpoint))
        return (
            writer.outputMode("update").trigger(processingTime=f"{seconds} seconds").foreachBatch(write_batch).start()
        )
