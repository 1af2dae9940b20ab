"""make bench: the batch beside polars, DuckDB, TA-Lib and pandas, on the same Delta tables, in one run.

Writes bench/results/batch.md and batch.json. Seconds are medians of the runs made after one warm-up (large sizes and
the slowest peers run once). ``sise_s`` is the whole job from Delta to Delta (indicators, states, live state),
``sise_compute_s`` its computation without the write. The machine is shared: compare the ratios.

    make bench BENCH_ARGS="--only kr,rows_3m,rows_15m,day"
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import talib
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from sise.calendars import COUNTRIES, Calendar  # noqa: E402
from sise.indicators.batch import with_indicators  # noqa: E402
from sise.indicators.compute import all_bars, compute_indicators  # noqa: E402
from sise.indicators.registry import Registry  # noqa: E402
from sise.lake import Lake  # noqa: E402
from sise.session import keep_names  # noqa: E402

RESULTS = HERE / "bench" / "results"
REGISTRY = Registry.load(HERE / "conf" / "indicators.json")
CALENDARS = {
    c: Calendar.load(c, HERE / "conf" / "calendar_overrides.json", HERE / ".local" / "cache") for c in COUNTRIES
}


def open_spark(work: Path) -> SparkSession:
    """As every job has it: conf/spark-defaults.conf, the locked jars, two cores."""
    jars = sorted((HERE / ".local" / "jars" / "spark").glob("*.jar"))
    os.environ |= {
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_CONF_DIR": str(HERE / "conf"),
    }
    builder = (
        SparkSession.builder.master("local[2]").appName("sise bench").config("spark.jars", ",".join(map(str, jars)))
    )
    for line in (HERE / "conf" / "spark-defaults.conf").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            key, value = line.split(None, 1)
            builder = builder.config(key, value.strip())
    events = HERE / ".local" / "spark-events"
    events.mkdir(parents=True, exist_ok=True)
    spark = (
        builder.config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.local.dir", str(work / "spark"))
        .config("spark.eventLog.dir", f"file://{events}")
        .getOrCreate()
    )
    keep_names(spark)
    return spark


def generate(folder: Path, symbols: int, sessions: int) -> list[date]:
    """Random walks of US shares as parquet, a file for each 500 symbols; the sessions used."""
    folder.mkdir(parents=True)
    days = list(CALENDARS["US"].days[-sessions - 300 : -300])
    rng = np.random.default_rng(11)
    stamps = np.array(days, dtype="datetime64[D]")
    for start in range(0, symbols, 500):
        count = min(500, symbols - start)
        close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, (count, sessions)), axis=1)) + 1, 2)
        opened = np.round(close * (1 + rng.normal(0, 0.004, close.shape)), 2)
        high = np.round(np.maximum(opened, close) * (1 + np.abs(rng.normal(0, 0.004, close.shape))), 2)
        low = np.round(np.minimum(opened, close) * (1 - np.abs(rng.normal(0, 0.004, close.shape))), 2)
        table = pa.table(
            {
                "country": pa.array(["US"]).take(pa.array(np.zeros(close.size, int))),
                "symbol": np.repeat([f"S{n:05d}" for n in range(start, start + count)], sessions),
                "date": pa.array(np.tile(stamps, count)),
                "market": pa.array(["NASDAQ"]).take(pa.array(np.zeros(close.size, int))),
                "open": opened.ravel(),
                "high": high.ravel(),
                "low": low.ravel(),
                "close": close.ravel(),
                "volume": rng.integers(1000, 1_000_000, close.size),
            }
        )
        pq.write_table(table, folder / f"{start:05d}.parquet")
    return days


def load(spark: SparkSession, source: str, lake: Lake, files: int = 8) -> None:
    rows = spark.read.parquet(source).withColumn("basis", F.col("date")).withColumn("provisional", F.lit(False))
    rows = rows.withColumns({"source": F.lit("bench"), "flags": F.array().cast("array<string>")})
    for name, kind in (("value", "double"), ("reference", "double"), ("collected_at", "timestamp")):
        rows = rows.withColumn(name, F.lit(None).cast(kind))
    lake.append("prices", rows.repartitionByRange(files, "date").sortWithinPartitions("symbol", "date"))


def timed(work: Callable[[], object], runs: int, warm: int = 1) -> float:
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(runs):
        started = time.monotonic()
        work()
        seconds.append(time.monotonic() - started)
    return round(statistics.median(seconds), 2)


class Beside:
    """What is measured in a thread of its own for the length of a block: ``run`` until ``stopped``."""

    def __enter__(self) -> Self:
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._thread.join()

    def run(self) -> None:
        raise NotImplementedError


class Memory(Beside):
    """The most that Spark's JVM and its Python workers held together, resident, in GiB (shared pages once)."""

    def __init__(self) -> None:
        self.most = 0.0

    def run(self) -> None:
        while not self.stopped.wait(0.5):
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    info = child.memory_full_info() if "java" not in child.name() else child.memory_info()
                    total += getattr(info, "uss", info.rss)
                except psutil.Error:
                    continue
            self.most = max(self.most, total / 2**30)


# The peers: read the same prices table, compute, write the same columns to a Delta table -----------------------------

COLUMNS = ["country", "symbol", "date", "market", "open", "high", "low", "close", "volume"]


def run_polars(prices: str, out: str) -> None:
    rows = pl.scan_delta(prices).select(COLUMNS).filter(pl.col("volume") > 0).collect().sort("symbol", "date")
    c, v = pl.col("close"), pl.col("volume").cast(pl.Float64)

    def over(e: pl.Expr) -> pl.Expr:
        return e.over("symbol")

    change = c.diff()
    fast, slow = c.ewm_mean(span=12, adjust=False), c.ewm_mean(span=26, adjust=False)
    line = fast - slow
    gain = change.clip(lower_bound=0).ewm_mean(alpha=1 / 14, adjust=False)
    loss = (-change).clip(lower_bound=0).ewm_mean(alpha=1 / 14, adjust=False)
    true_range = pl.max_horizontal(pl.col("high"), c.shift(1)) - pl.min_horizontal(pl.col("low"), c.shift(1))
    deviation = c.rolling_std(20, ddof=0)
    columns = {f"sma_{n}": over(c.rolling_mean(n)) for n in (5, 20, 50, 60, 120, 200)}
    columns |= {"ema_12": over(fast), "ema_26": over(slow), "macd": over(line)}
    columns |= {
        "macd_signal": over(line.ewm_mean(span=9, adjust=False)),
        "macd_hist": over(line - line.ewm_mean(span=9, adjust=False)),
    }
    columns |= {
        "rsi_14": over(100 * gain / (gain + loss)),
        "atr_14": over(true_range.ewm_mean(alpha=1 / 14, adjust=False)),
    }
    columns |= {
        "bb_middle": over(c.rolling_mean(20)),
        "bb_upper": over(c.rolling_mean(20) + 2 * deviation),
        "bb_lower": over(c.rolling_mean(20) - 2 * deviation),
    }
    columns |= {
        "volume_avg_20": over(v.rolling_mean(20)),
        "volume_ratio_20": over(v / v.rolling_mean(20)),
        "high_252": over(pl.col("high").rolling_max(252)),
        "low_252": over(pl.col("low").rolling_min(252)),
    }
    columns |= {f"return_{n}": over(c / c.shift(n) - 1) for n in (1, 5, 20)}
    found = rows.with_columns(**columns).drop("open", "high", "low")
    found.write_delta(out, mode="overwrite")


def run_duckdb(prices: str, out: str) -> None:
    files = DeltaTable(prices).file_uris()
    with duckdb.connect() as db:
        db.execute("SET threads TO 2")
        frames = {n: f"ROWS BETWEEN {n - 1} PRECEDING AND CURRENT ROW" for n in (5, 20, 50, 60, 120, 200, 252)}
        means = ", ".join(f"avg(close) OVER (w {frames[n]}) AS sma_{n}" for n in (5, 20, 50, 60, 120, 200))
        found = db.execute(
            f"""SELECT country, symbol, date, market, close, volume, {means},
                avg(close) OVER (w {frames[20]}) + 2 * stddev_pop(close) OVER (w {frames[20]}) AS bb_upper,
                avg(close) OVER (w {frames[20]}) - 2 * stddev_pop(close) OVER (w {frames[20]}) AS bb_lower,
                avg(volume) OVER (w {frames[20]}) AS volume_avg_20, max(high) OVER (w {frames[252]}) AS high_252,
                min(low) OVER (w {frames[252]}) AS low_252, close / lag(close, 1) OVER w - 1 AS return_1,
                close / lag(close, 5) OVER w - 1 AS return_5, close / lag(close, 20) OVER w - 1 AS return_20
                FROM read_parquet({files!r}) WHERE volume > 0 WINDOW w AS (PARTITION BY symbol ORDER BY date)"""
        ).to_arrow_table()
    write_deltalake(out, found, mode="overwrite")


def _per_symbol(prices: str) -> tuple[pd.DataFrame, list[tuple[int, int]]]:
    rows = (
        DeltaTable(prices)
        .to_pyarrow_dataset()
        .to_table(columns=COLUMNS)
        .sort_by([("symbol", "ascending"), ("date", "ascending")])
    )
    frame = rows.to_pandas(date_as_object=False)
    frame = frame[frame["volume"] > 0].reset_index(drop=True)
    starts = np.flatnonzero(frame["symbol"].to_numpy()[1:] != frame["symbol"].to_numpy()[:-1]) + 1
    edges = [0, *starts.tolist(), len(frame)]
    return frame, list(itertools.pairwise(edges))


def run_talib(prices: str, out: str) -> None:
    frame, spans = _per_symbol(prices)
    c_all, h_all, l_all = (frame[x].to_numpy(float) for x in ("close", "high", "low"))
    v_all = frame["volume"].to_numpy(float)
    found = {name: np.full(len(frame), np.nan) for name in REGISTRY.core}
    for a, b in spans:
        c, h, low, v = c_all[a:b], h_all[a:b], l_all[a:b], v_all[a:b]
        for n in (5, 20, 50, 60, 120, 200):
            found[f"sma_{n}"][a:b] = talib.SMA(c, n)
        found["ema_12"][a:b], found["ema_26"][a:b] = talib.EMA(c, 12), talib.EMA(c, 26)
        found["macd"][a:b], found["macd_signal"][a:b], found["macd_hist"][a:b] = talib.MACD(c)
        found["rsi_14"][a:b], found["atr_14"][a:b] = talib.RSI(c), talib.ATR(h, low, c)
        found["bb_upper"][a:b], found["bb_middle"][a:b], found["bb_lower"][a:b] = talib.BBANDS(c, 20)
        found["volume_avg_20"][a:b] = talib.SMA(v, 20)
        found["high_252"][a:b], found["low_252"][a:b] = talib.MAX(h, 252), talib.MIN(low, 252)
        for n in (1, 5, 20):
            found[f"return_{n}"][a:b] = talib.ROCP(c, n)
    found["volume_ratio_20"] = v_all / found["volume_avg_20"]
    table = frame[["country", "symbol", "date", "market", "close", "volume"]].assign(**found)
    write_deltalake(out, pa.Table.from_pandas(table, preserve_index=False), mode="overwrite")


def run_pandas(prices: str, out: str) -> None:
    frame, spans = _per_symbol(prices)
    pieces = []
    for a, b in spans:
        part = frame.iloc[a:b]
        c, h, low, v = part["close"], part["high"], part["low"], part["volume"].astype(float)
        change, before = c.diff(), c.shift(1)
        fast, slow = c.ewm(span=12, adjust=False).mean(), c.ewm(span=26, adjust=False).mean()
        signal = (fast - slow).ewm(span=9, adjust=False).mean()
        gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        loss = (-change).clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        mean, deviation = c.rolling(20).mean(), c.rolling(20).std(ddof=0)
        pieces.append(
            pd.DataFrame(
                {
                    **{f"sma_{n}": c.rolling(n).mean() for n in (5, 20, 50, 60, 120, 200)},
                    "ema_12": fast,
                    "ema_26": slow,
                    "macd": fast - slow,
                    "macd_signal": signal,
                    "macd_hist": fast - slow - signal,
                    "rsi_14": 100 * gain / (gain + loss),
                    "bb_upper": mean + 2 * deviation,
                    "bb_middle": mean,
                    "bb_lower": mean - 2 * deviation,
                    "atr_14": (np.maximum(h, before) - np.minimum(low, before)).ewm(alpha=1 / 14, adjust=False).mean(),
                    "volume_avg_20": v.rolling(20).mean(),
                    "volume_ratio_20": v / v.rolling(20).mean(),
                    "high_252": h.rolling(252).max(),
                    "low_252": low.rolling(252).min(),
                    **{f"return_{n}": c / c.shift(n) - 1 for n in (1, 5, 20)},
                }
            )
        )
    table = pd.concat([frame[["country", "symbol", "date", "market", "close", "volume"]], pd.concat(pieces)], axis=1)
    write_deltalake(out, pa.Table.from_pandas(table, preserve_index=False), mode="overwrite")


PEERS = {"polars_s": run_polars, "duckdb_s": run_duckdb, "talib_s": run_talib, "pandas_s": run_pandas}


def measure(spark: SparkSession, lake: Lake, work: Path, runs: int) -> dict[str, float]:
    """One size: sise and the peers on the same table."""
    found: dict[str, float] = {"rows": lake.read("prices").count()}
    with Memory() as memory:
        found["sise_s"] = timed(lambda: compute_indicators(spark, lake, REGISTRY, CALENDARS, full=True), runs)

        def compute_only() -> None:
            with_indicators(all_bars(lake), REGISTRY).write.format("noop").mode("overwrite").save()

        found["sise_compute_s"] = timed(compute_only, runs, 0)
    found["sise_peak_gib"] = round(memory.most, 2)
    print(f"  sise {found['sise_s']} s, compute {found['sise_compute_s']} s, {found['sise_peak_gib']} GiB", flush=True)
    for name, peer in PEERS.items():
        out = str(work / f"peer-{name}")
        once = name == "pandas_s" or runs == 1
        found[name] = timed(lambda: peer(lake.path("prices"), out), 1 if once else runs, 0 if once else 1)  # noqa: B023
        shutil.rmtree(out, ignore_errors=True)
        print(f"  {name} {found[name]}", flush=True)
    found["ratio_to_polars"] = round(found["sise_s"] / found["polars_s"], 2)
    return found


def add_session(lake: Lake, day: date, last: pd.DataFrame, step: float) -> None:
    rows = last.assign(date=day, basis=day)
    for column in ("open", "high", "low", "close"):
        rows[column] = rows[column] * step
    schema = lake.schema("prices")
    lake.append(
        "prices",
        lake.spark.createDataFrame(
            pa.Table.from_pandas(
                rows[[f.name for f in schema.fields if f.name != "collected_at"]], preserve_index=False
            )
        )
        .withColumn("collected_at", F.lit(None).cast("timestamp"))
        .coalesce(1),
    )


def measure_day(spark: SparkSession, work: Path, sessions: int, runs: int) -> float:
    """6,000 symbols: seconds of the default compute_indicators job, from command to exit, on one new session."""
    root = work / f"day-{sessions}"
    days = generate(root / "source", 6000, sessions)
    lake = Lake(spark, str(root / "lake"), REGISTRY.extra_columns)
    load(spark, str(root / "source"), lake, max(4, sessions // 250))
    compute_indicators(spark, lake, REGISTRY, CALENDARS, full=True)
    last = lake.read("prices").where(F.col("date") == F.lit(days[-1])).drop("collected_at").toPandas()
    seconds, day = [], days[-1]
    for n in range(runs + 1):
        day = CALENDARS["US"].next(day)
        add_session(lake, day, last, 1.001 + n / 1000)
        started = time.monotonic()
        done = subprocess.run(
            [HERE / "spark-submit.sh", "jobs/compute_indicators.py"],
            cwd=HERE,
            capture_output=True,
            text=True,
            env={**os.environ, "SISE_LAKE": lake.root, "SISE_MASTER": "local[2]"},
        )
        seconds.append(time.monotonic() - started)
        record = json.loads(done.stdout.strip().splitlines()[-1])
        assert record["status"] == "ok" and record["details"]["mode"] == "day" and record["rows_out"] == 6000, record
        print(f"  day of {sessions} sessions: {seconds[-1]:.1f} s, steps {record['details']['steps']}", flush=True)
    shutil.rmtree(root)
    return round(statistics.median(seconds[1:]), 2)


def write_results(results: dict) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "batch.json").write_text(json.dumps(results, indent=2) + "\n")
    names = ["rows", "sise_s", "sise_compute_s", "sise_peak_gib", *PEERS, "ratio_to_polars"]
    lines = [
        "# The batch, measured",
        "",
        f"`make bench`, {results['when']}, two shared cores. Medians; compare the ratios.",
        "",
        "| size | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for size in ("kr", "rows_3m", "rows_15m"):
        if size in results:
            lines.append(f"| {size} | " + " | ".join(f"{results[size].get(n, '')}" for n in names) + " |")
    if "day_6000" in results:
        day = results["day_6000"]
        lines += [
            "",
            "The day, 6,000 symbols, from command to exit: "
            + ", ".join(f"{k.replace('_', ' ')}: {v} s" for k, v in day.items()),
        ]
    (RESULTS / "batch.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="kr,rows_3m,rows_15m,day")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    only = args.only.split(",")
    path = RESULTS / "batch.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    results["when"] = f"{datetime.now(UTC):%Y-%m-%d}"
    work = Path(tempfile.mkdtemp(prefix="sise-bench-", dir=HERE / ".local"))
    spark = open_spark(work)
    try:
        real = HERE.parent / "shared" / "market" / "kr_daily.parquet"
        if "kr" in only and real.is_file():
            print("real KR file", flush=True)
            lake = Lake(spark, str(work / "kr"), REGISTRY.extra_columns)
            rows = spark.read.parquet(str(real)).withColumns(
                {"country": F.lit("KR"), "market": F.lit("KOSPI"), "date": F.col("date").cast("date")}
            )
            rows.write.parquet(str(work / "kr-source"))
            load(spark, str(work / "kr-source"), lake)
            results["kr"] = measure(spark, lake, work, args.runs)
            write_results(results)
        elif "kr" in only:
            print(f"{real} is not there: the real file is left out", flush=True)
        for name, symbols, sessions, runs in (("rows_3m", 3000, 1000, args.runs), ("rows_15m", 6000, 2500, 1)):
            if name in only:
                print(f"{name}: {symbols} symbols x {sessions} sessions", flush=True)
                generate(work / f"{name}-source", symbols, sessions)
                lake = Lake(spark, str(work / name), REGISTRY.extra_columns)
                load(spark, str(work / f"{name}-source"), lake, max(8, sessions // 250))
                results[name] = measure(spark, lake, work, runs)
                shutil.rmtree(work / name)
                shutil.rmtree(work / f"{name}-source")
                write_results(results)
        if "day" in only:
            years = {f"years_{y}": measure_day(spark, work, 250 * y, args.runs) for y in (1, 10)}
            results["day_6000"] = {"seconds": years["years_10"], **years}
            write_results(results)
    finally:
        spark.stop()
        shutil.rmtree(work, ignore_errors=True)
    print((RESULTS / "batch.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
