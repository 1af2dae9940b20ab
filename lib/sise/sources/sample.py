"""The sample market: a seeded, generated market that ships with the project (see simulate.py for what is in it)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from sise.calendars import Calendar
from sise.errors import UsageError
from sise.sources.base import ACTIONS, BARS, INDICES, SYMBOLS, Request, shape_of
from sise.sources.simulate import FIRST_SESSION, index_returns, simulate_many

__all__ = ["SampleSource"]

_MARKETS = {"KOSPI": "KR", "KOSDAQ": "KR", "NASDAQ": "US"}
LAST_SESSION = date(2025, 12, 30)


class SampleSource:
    """``symbols`` shares in three markets from FIRST_SESSION to LAST_SESSION; the same seed gives the same market."""

    name = "sample"
    whole_listing = False  # its rows say themselves when a share leaves

    def __init__(self, calendars: dict[str, Calendar], count: int = 300, seed: int = 20211):
        if not 9 <= count <= 20_000:
            raise UsageError(f"--symbols {count}: the sample market has from 9 to 20000 symbols")
        self.count, self.seed = count, seed
        self._sessions = {c: calendars[c].between(FIRST_SESSION, LAST_SESSION) for c in ("KR", "US")}

    def symbols(self, spark: SparkSession, request: Request) -> DataFrame:
        # A row from before the span still describes the share in it, so only the end cuts.
        return self._rows(spark, "symbols", SYMBOLS, replace(request, start=None), "valid_from")

    def bars(self, spark: SparkSession, request: Request) -> DataFrame:
        return self._rows(spark, "bars", BARS, request, "date")

    def actions(self, spark: SparkSession, request: Request) -> DataFrame:
        return self._rows(spark, "actions", ACTIONS, replace(request, markets=()), "ex_date")

    def indices(self, spark: SparkSession, request: Request) -> DataFrame:
        frames = []
        for market, country in _MARKETS.items():
            if request.markets and market not in request.markets:
                continue
            sessions = self._sessions[country]
            close = 1000 * np.cumprod(1 + index_returns(self.seed, market, len(sessions)))
            opened = np.concatenate([[1000.0], close[:-1]])
            frames.append(
                pd.DataFrame(
                    {
                        "index": market,
                        "date": sessions,
                        "open": opened,
                        "high": np.maximum(opened, close),
                        "low": np.minimum(opened, close),
                        "close": close,
                        "volume": np.nan,
                    }
                )
            )
        if not frames:
            return spark.createDataFrame([], INDICES)
        rows = spark.createDataFrame(pd.concat(frames), INDICES).withColumn("volume", F.lit(None).cast("double"))
        return _between(rows, "date", request)

    def _rows(self, spark: SparkSession, kind: str, schema: str, request: Request, dated: str) -> DataFrame:
        """The rows of one kind that ``request`` asks for, by the day in ``dated``. A share is always walked from its
        first session, which is cheap beside making rows for Spark of what nobody asked for."""
        seed, sessions = self.seed, self._sessions
        shape, markets = to_arrow_schema(shape_of(schema)), request.markets
        first, last = request.start or FIRST_SESSION, request.end or LAST_SESSION

        def generate(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for share in simulate_many(seed, iter(batch.column("id").to_pylist()), sessions):
                    rows = [row for row in getattr(share, kind) if first <= row[dated] <= last]
                    if markets:
                        rows = [row for row in rows if row["market"] in markets]
                    yield pa.RecordBatch.from_pylist(rows, schema=shape)

        slices = max(2, spark.sparkContext.defaultParallelism)
        return spark.range(0, self.count, 1, slices).mapInArrow(generate, schema)


def _between(rows: DataFrame, column: str, request: Request) -> DataFrame:
    if request.start is not None:
        rows = rows.where(F.col(column) >= F.lit(request.start))
    if request.end is not None:
        rows = rows.where(F.col(column) <= F.lit(request.end))
    return rows
