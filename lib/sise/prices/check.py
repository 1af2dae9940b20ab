"""The quality report as a job: a CSV that names every bar, and a summary that names every jump."""

from __future__ import annotations

import csv
from datetime import date
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sise.lake import Lake
from sise.ops.outcome import Outcome
from sise.prices.report import quality_report
from sise.session import Hold, described
from sise.settings import Settings

__all__ = ["check_quality"]

_MOST_NAMED = 200


def check_quality(
    spark: SparkSession, lake: Lake, settings: Settings, output: Path, start: date | None, end: date | None
) -> Outcome:
    """Writes the report of the flagged bars from ``start`` to ``end`` to ``output`` and names the jumps on stderr."""
    limits = {"KR": settings.jump_limit_kr, "US": settings.jump_limit_us}
    report = quality_report(lake.require("prices"), lake.read("actions"), lake.read("symbols"), limits)
    if start is not None:
        report = report.where(F.col("date") >= F.lit(start))
    if end is not None:
        report = report.where(F.col("date") <= F.lit(end))
    with Hold() as hold:
        with described(spark, "quality: find flagged bars and their likely cause"):
            report = hold(report.orderBy("check", "country", "date", "symbol"))
        return _report(spark, report, output)


def _report(spark: SparkSession, report: DataFrame, output: Path) -> Outcome:
    with described(spark, "quality: count them"):
        counts = {row["check"]: row["count"] for row in report.groupBy("check").count().orderBy("check").collect()}
        shares = {
            r["check"]: r["n"]
            for r in report.groupBy("check").agg(F.count_distinct("country", "symbol").alias("n")).collect()
        }
    with described(spark, "quality: write the report"):
        written = _write(report, output)
    jumps = report.where(F.col("check").isin("jump", "unconfirmed_action")).orderBy("country", "date", "symbol")
    named = jumps.limit(_MOST_NAMED).collect()
    outcome = Outcome(rows_in=written, rows_out=written)
    outcome.details = {
        "report": str(output),
        "checks": counts,
        "shares": shares,
        "jumps": [
            {
                "country": r["country"],
                "symbol": r["symbol"],
                "date": r["date"],
                "change": None if r["change"] is None else round(r["change"], 4),
                "likely_cause": r["likely_cause"],
                "pattern": r["pattern"],
            }
            for r in named
            if r["check"] == "jump"
        ],
    }
    for row in named:
        pattern = f" ({row['pattern']})" if row["pattern"] else ""
        before, move = "", ""  # a share's first traded bar has none before it
        if row["previous_close"] is not None:
            before, move = f"{row['previous_close']:g} → ", f" ({row['change']:+.1%})"
        outcome.say(
            f"{row['check']} {row['country']}:{row['symbol']} {row['date']}: {before}{row['close']:g}{move}, "
            f"cause: {row['likely_cause']}{pattern}"
        )
    if counts.get("jump", 0) > _MOST_NAMED:
        outcome.say(f"… and {counts['jump'] - _MOST_NAMED} more jumps")
    for check, count in counts.items():
        outcome.say(f"{check}: {count} bars of {shares[check]} shares")
    outcome.say(f"every one of them by name: {output}")
    return outcome


def _write(report: DataFrame, output: Path) -> int:
    """A CSV, row by row: the flagged bars are few beside the table, but need not fit the driver's memory."""
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_suffix(output.suffix + ".part")
    count = 0
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(report.columns)
        for row in report.toLocalIterator():
            writer.writerow(["" if value is None else value for value in row])
            count += 1
    part.replace(output)
    return count
