"""A lake of the sample market as a day's jobs leave it, with signals of the last months that were tracked: what the
viewer and the notebooks are tested on. Built in one session, shared by all of them, read only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from sise.calendars import Calendar
from sise.indicators.compute import compute_indicators
from sise.indicators.registry import Registry
from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.check import check_quality
from sise.prices.collect import collect_prices, today_of
from sise.prices.symbols import collect_symbols
from sise.settings import Settings
from sise.signals.rules import LiveRules
from sise.signals.track import track_signals
from sise.sources.base import Request
from sise.sources.sample import SampleSource
from sise.watchlists.scan import scan_watchlists
from tests.builders import bar, put, share

__all__ = ["HOSTILE", "TODAY", "archive_past_signals", "build_lake", "settings_of"]

TODAY = date(2026, 1, 2)
LAST = date(2025, 12, 30)
# A name as a listing could bring it: markup, a script, and what markdown reads.
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> **b** [a](javascript:alert(1)) $x$'


def settings_of(conf: Path, root: Path) -> Settings:
    return Settings(lake=str(root / "lake"), conf=conf, local=root / "local", today=TODAY)


def build_lake(
    spark: SparkSession, registry: Registry, calendars: Mapping[str, Calendar], conf: Path, root: Path, count: int
) -> Settings:
    settings = settings_of(conf, root)
    lake = Lake(spark, settings.lake, registry.extra_columns)
    source = SampleSource(dict(calendars), count)
    done: list[tuple[str, Outcome]] = []

    def ran(job: str, outcome: Outcome) -> None:
        done.append((job, outcome))

    ran("collect_symbols", collect_symbols(spark, lake, source, Request(), today_of(settings, calendars)))
    before = calendars["KR"].back(LAST, 1)
    ran("collect_prices", collect_prices(spark, lake, source, Request(end=before), settings, calendars))
    ran("compute_indicators", compute_indicators(spark, lake, registry, calendars))
    ran("scan_watchlists", scan_watchlists(spark, lake, registry, settings, dict(calendars)))
    ran("collect_prices", collect_prices(spark, lake, source, Request(start=LAST), settings, calendars))
    ran("compute_indicators", compute_indicators(spark, lake, registry, calendars))
    put(lake, "symbols", [share("0000X0", "2025-12-30", name=HOSTILE, market_cap=None) | {"source": "test"}])
    put(lake, "prices_rejected", [_refused()])
    ran("scan_watchlists", scan_watchlists(spark, lake, registry, settings, dict(calendars)))
    report = settings.local / "reports" / "quality.csv"
    ran("check_quality", check_quality(spark, lake, settings, report, None, None))
    archive_past_signals(lake, registry, settings)
    ran("track_signals", track_signals(spark, lake, settings, calendars))
    put(lake, "runs", [_run(n, job, outcome) for n, (job, outcome) in enumerate(done)])
    return settings


def archive_past_signals(lake: Lake, registry: Registry, settings: Settings, sessions: int = 120) -> None:
    """Rows of ``signals`` as if the RSI rules had been watched for the last sessions: where they began to hold."""
    version = LiveRules.load(settings.conf_file("watchlists.json"), registry).version
    order = Window.partitionBy("country", "symbol").orderBy("date")
    rows = lake.read("indicators").where(F.col("date") >= F.lit(LAST - timedelta(days=sessions * 7 // 5)))
    rows = rows.withColumn("_before", F.lag("rsi_14").over(order))
    begins = F.when((F.col("rsi_14") < 30) & (F.col("_before") >= 30), "rsi_oversold").when(
        (F.col("rsi_14") > 70) & (F.col("_before") <= 70), "rsi_overbought"
    )
    rows = rows.withColumn("signal_type", begins).where("signal_type IS NOT NULL")
    lake.append(
        "signals",
        rows.select(
            F.concat_ws(":", "country", "symbol", "signal_type", "date", F.lit("1")).alias("signal_id"),
            "country",
            "market",
            "symbol",
            "signal_type",
            F.col("date").alias("session"),
            (F.col("date").cast("timestamp") + F.expr("INTERVAL 6 HOURS")).alias("timestamp"),
            F.col("close").alias("trigger_price"),
            F.create_map(F.lit("rsi_14"), F.col("rsi_14")).alias("indicators"),
            F.lit(version).alias("rule_version"),
            F.date_sub("date", 1).alias("as_of"),
            F.col("volume").cast("bigint").alias("day_volume"),
            F.lit(0).alias("tick_partition"),
            F.monotonically_increasing_id().alias("tick_offset"),
            F.lit(0).cast("long").alias("state_version"),
            F.lit("").alias("label"),
        ),
    )


def _refused() -> dict:
    row = bar("0000X0", "2025-12-30", -1.0, basis="2025-12-30") | {"date": "2025-12-30"}
    return {
        "reject_id": "0" * 64,
        "country": "KR",
        "symbol": "0000X0",
        "date": "2025-12-30",
        "reason": f"close is not positive {HOSTILE}",
        "row": json.dumps(row, default=str),
        "source": "test",
        "collected_at": datetime(2025, 12, 30, 8, tzinfo=UTC),
    }


def _run(number: int, job: str, outcome: Outcome) -> dict:
    started = datetime(2025, 12, 30, 7, number, tzinfo=UTC)
    return {
        "run_id": f"{job}-{number}",
        "job": job,
        "arguments": {"source": "sample"},
        "status": "ok",
        "started_at": started,
        "finished_at": started + timedelta(seconds=20 + number),
        "seconds": 20.0 + number,
        "rows_in": outcome.rows_in,
        "rows_out": outcome.rows_out,
        "rows_rejected": outcome.rows_rejected,
        "versions": {},
        "details": "{}",
        "error": None,
    }
