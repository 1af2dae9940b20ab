"""Many evaluated signals in figures, the number of cases always beside them."""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sise.signals.performance import HORIZONS

__all__ = ["ALL", "no_figures", "sentence", "summarize"]

ALL = "ALL"


def summarize(rows: DataFrame, *keys: str) -> DataFrame:
    """Figures by ``keys``, market, month of the signal's session (2025-03) and horizon; ``ALL``: every market, month.

    In: ``keys``, market, session and what ``performance.evaluate`` adds. Out: ``keys``, market, month, horizon
    (sessions: 1, 5, 20); ``signals`` = ``cases`` + ``open`` (the horizon is not over) + ``no_entry`` + ``suspect``.
    Over the cases: ``hit_rate`` (the part with a return above 0), ``mean``, ``median``, ``spread`` (sample standard
    deviation; null for one case), ``best`` and ``worst`` of the returns in the rule's direction; over those
    ``market_cases`` whose market has an index: ``mean_market`` (its own return over the same days) and
    ``mean_excess``; at the longest horizon ``mean_mfe`` and ``mean_mae``. Fractions; null where there is no case.

    Signals of one week overlap and share their market's days: so many cases are fewer independent ones.
    """
    longest = max(HORIZONS)
    horizons = [
        F.struct(
            F.lit(n).alias("horizon"),
            F.col(f"return_{n}").alias("return"),
            F.col(f"market_return_{n}").alias("market_return"),
            F.col(f"excess_{n}").alias("excess"),
            *[(F.col(c) if n == longest else F.lit(None).cast("double")).alias(c) for c in ("mfe", "mae")],
        )
        for n in HORIZONS
    ]
    refused, suspect = F.col("no_entry").isNotNull(), F.col("suspect")
    rows = rows.select(
        *keys,
        F.explode(F.array(F.lit(ALL), F.col("market"))).alias("market"),
        F.date_format("session", "yyyy-MM").alias("month"),
        refused.alias("_refused"),
        (suspect & ~refused).alias("_suspect"),
        F.array(*horizons).alias("_horizons"),
    )
    rows = rows.withColumn("month", F.explode(F.array(F.lit(ALL), F.col("month"))))
    rows = rows.select("*", F.explode("_horizons").alias("_h")).select("*", "_h.*")
    counts = ~F.col("_refused") & ~F.col("_suspect") & F.col("return").isNotNull()
    waiting = ~F.col("_refused") & ~F.col("_suspect") & F.col("return").isNull()

    def of(column: str) -> Column:
        return F.when(counts, F.col(column))

    figures = {
        "hit_rate": F.avg(F.when(counts, (F.col("return") > 0).cast("double"))),
        "mean": F.avg(of("return")),
        "median": F.median(of("return")),
        "spread": F.stddev_samp(of("return")),
        "best": F.max(of("return")),
        "worst": F.min(of("return")),
        "mean_market": F.avg(of("market_return")),
        "mean_excess": F.avg(of("excess")),
        "mean_mfe": F.avg(of("mfe")),
        "mean_mae": F.avg(of("mae")),
    }
    return rows.groupBy(*keys, "market", "month", "horizon").agg(
        F.count(F.lit(1)).alias("signals"),
        F.count_if(counts).alias("cases"),
        F.count_if(waiting).alias("open"),
        F.count_if("_refused").alias("no_entry"),
        F.count_if("_suspect").alias("suspect"),
        F.count(of("excess")).alias("market_cases"),
        # rounded: the order in which Spark adds up is no change of the figure
        *[F.round(value, 10).alias(name) for name, value in figures.items()],
    )


def no_figures(like: DataFrame) -> DataFrame:
    """What summarize() gives of no signal at all, ``like`` its frame: a row for each horizon that says so."""
    counts = [f.name for f in like.schema if f.dataType.typeName() == "long"]
    none = dict.fromkeys(like.columns) | dict.fromkeys(counts, 0) | {"market": ALL, "month": ALL}
    return like.sparkSession.createDataFrame([none | {"horizon": n} for n in HORIZONS], like.schema)


def sentence(row: Any) -> str:
    """A row of figures for a person."""
    if not row["cases"]:
        left = [f"{row[c]} {word}" for c, word in _LEFT_OUT.items() if row[c]]
        return f"no case yet of {row['signals']} signals ({', '.join(left)})"
    text = (
        f"{row['cases']:,} cases, {row['hit_rate']:.0%} hits, mean {row['mean']:+.2%}, median {row['median']:+.2%}, "
        f"worst {row['worst']:+.1%}, best {row['best']:+.1%}"
    )
    if row["mean_excess"] is not None:
        text += f"; market {row['mean_market']:+.2%}, excess {row['mean_excess']:+.2%} over {row['market_cases']:,}"
    return text


_LEFT_OUT = {"open": "still running", "no_entry": "without an entry", "suspect": "with suspect prices"}
