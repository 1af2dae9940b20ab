"""Signals that were fired behind the ticks: what the prices between were, for their best and worst."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from redis.exceptions import RedisError

from sise.console import tell
from sise.errors import cause_of
from sise.serving.prices import LatestPrices
from sise.session import described
from sise.settings import Settings
from sise.topics import TICKS, topic_of

__all__ = ["Missed"]

_MOST = 5_000  # signals at a time
_PAUSE = 10.0  # seconds; where ticks come fast, now and then one is there before the signal of the one before it
_SIGNAL = "id string, country string, symbol string, session string, since bigint"
_FIELDS = ("country", "symbol", "session", "timestamp", "partition", "offset")


@dataclass
class Missed:
    """The set ``missed`` of fire.lua. In real-time mode the latest prices are a query of their own: where the relay was
    away, the signals of that time are not there yet when the ticks after them are.

    ``judge``: from Kafka's rows to those of judge.py's tick_prices.
    """

    spark: SparkSession
    settings: Settings
    prices: LatestPrices
    judge: Callable[[DataFrame], DataFrame]
    _again: float = 0.0

    def follow(self) -> None:
        """Reads the ticks again that came after those signals, and has ``prices`` take the highest and the lowest of
        their sessions. To be called now and then; what fails is told, and done a minute later."""
        if time.monotonic() < self._again:
            return
        try:
            if self._follow():
                self._again = time.monotonic() + _PAUSE
        except (RedisError, PySparkException, Py4JJavaError) as problem:
            why = cause_of(problem)
            tell(f"detect: best and worst of signals that were fired late wait for a minute: {why}")
            self._again = time.monotonic() + 60

    def _follow(self) -> bool:
        """Whether there were any."""
        client, settings = self.prices.client, self.settings
        key = f"{settings.redis_prefix}missed"
        names: Any = client.srandmember(key, _MOST)
        if not names:
            return False
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.hmget(f"{settings.redis_prefix}signal:{name.decode()}", _FIELDS)
        known = [
            (name.decode(), *(v.decode() for v in row))
            for name, row in zip(names, pipe.execute(), strict=True)
            if all(row)
        ]
        if known:
            self.prices.follow_between(self._ranges(known))
        client.srem(key, *names)
        return True

    def _ranges(self, signals: list[tuple[str, ...]]) -> list[tuple[str, str, int, float, float]]:
        """What follow_between takes, of signals as ("id", *_FIELDS): one reading of their partitions."""
        first: dict[str, int] = {}
        for *_, partition, offset in signals:
            first[partition] = min(int(offset), first.get(partition, int(offset)))
        topic = topic_of(TICKS, self.settings.topic_prefix)
        ticks = (
            self.spark.read.format("kafka")
            .option("kafka.bootstrap.servers", self.settings.kafka)
            .option("assign", json.dumps({topic: [int(partition) for partition in first]}))
            .option("startingOffsets", json.dumps({topic: first}))
            .option("endingOffsets", "latest")
            .load()
        )
        wanted = self.spark.createDataFrame([(*row[:4], int(row[4])) for row in signals], _SIGNAL)
        shares = wanted.select(F.concat_ws(":", "country", "symbol").cast("binary").alias("key"))
        with described(self.spark, f"prices: the ticks after {len(signals)} signals that were fired behind them"):
            # The ticks of other shares are not even parsed.
            mine = ticks.join(F.broadcast(shares), "key", "left_semi").select(*ticks.columns)
            rows = self.judge(mine).join(F.broadcast(wanted), ["country", "symbol", "session"])
            since = rows.where(F.col("timestamp") >= F.col("since")).groupBy("id", "session", "since")
            found = since.agg(F.max("price").alias("high"), F.min("price").alias("low")).collect()
        return [(row["id"], row["session"], row["since"], row["high"], row["low"]) for row in found]
