"""A share's new bars, by the tick's own arithmetic: from the state of the bar before and a tail of bars.

No window function: the rolling columns of a bar are ``at_price`` at its close (live.py) over the sums and extremes of
the bars before it, and the filters go on from their stored state. So a day costs one sort of the tails, and the
indicators' three speeds share one definition. Rows equal the whole history's to 1e-12 (a test, over sixty days).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sise.indicators.algebra import Arrays
from sise.indicators.batch import PRICES, compute_extra, filter_state, joined_struct, whole_shares
from sise.indicators.ingredients import compute_ingredients
from sise.indicators.live import at_price
from sise.indicators.recursive import compute_filters
from sise.indicators.registry import KEPT_SESSIONS, Registry
from sise.indicators.rolling import BAR_COLUMNS

__all__ = ["with_new_bars"]


def with_new_bars(bars: DataFrame, states: DataFrame, registry: Registry, *, keep: int = KEPT_SESSIONS) -> DataFrame:
    """with_indicators' rows for the bars after each share's state.

    In: rolling.BAR_COLUMNS, adjusted, traded days only, from the state's ``tail_from`` on (null: all);
    ``states``: country, symbol and ``_state`` (struct date, bars and the registry's states), not null. Out:
    BAR_COLUMNS, the registry's columns and ``filter_state``. Raises where the bar of a state's date is missing.
    """
    state = F.array(F.col("_state.bars").cast("double"), *[F.col(f"_state.{name}") for name in registry.state])
    marks = states.select("country", "symbol", F.col("_state.date").alias("date"), state.alias("_values"))
    rows = bars.select(*BAR_COLUMNS).unionByName(marks, allowMissingColumns=True)
    rows = rows.select(
        F.when(F.col("_values").isNotNull(), 1).otherwise(0).alias("_mark"),
        "_values",
        *BAR_COLUMNS[:4],
        *[F.col(c).cast("double") for c in PRICES],
    )
    # A share's state goes before its bars, and so tells where a share begins.
    rows = rows.repartition("symbol", "country").sortWithinPartitions("symbol", "country", F.desc("_mark"), "date")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for columns in whole_shares(tuple(batch.columns) for batch in batches):
            yield _new_rows(registry, columns, keep)

    types = {"country": "string", "symbol": "string", "date": "date", "market": "string"}
    types |= dict.fromkeys([*PRICES, *registry.columns], "double")
    schema = ", ".join(f"`{name}` {kind}" for name, kind in types.items())
    return rows.mapInArrow(run, f"{schema}, filter_state {registry.state_type}")


def _new_rows(registry: Registry, columns: list[pa.Array], keep: int) -> pa.RecordBatch:
    mark = columns[0].to_numpy(zero_copy_only=False) == 1
    stored = columns[1].filter(pa.array(mark)).flatten().to_numpy(zero_copy_only=False)
    stored = stored.reshape(-1, 1 + len(registry.state))
    days = columns[4].cast(pa.int32()).to_numpy(zero_copy_only=False)
    share = (np.cumsum(mark) - 1)[~mark]  # of each bar
    state_days, days = days[mark], days[~mark]
    bars = {name: columns[6 + i].to_numpy(zero_copy_only=False)[~mark] for i, name in enumerate(PRICES)}
    firsts = np.searchsorted(share, np.arange(len(stored)))
    ends = np.searchsorted(share, np.arange(len(stored)), side="right")
    resumed = firsts + np.bincount(share, days < state_days[share], len(stored)).astype(int)  # the state's own bar
    if np.any(resumed >= ends) or np.any(days[np.minimum(resumed, len(days) - 1)] != state_days):
        raise RuntimeError("a filter state has no bar of its date: run compute_indicators with --full")

    new = np.flatnonzero(days > state_days[share])
    begins = firsts[share[new]]
    values = _filters(registry, bars, stored, resumed, ends)
    rolling = _rolling(registry, bars, new, begins)
    values |= compute_extra(registry, bars, firsts, ends)
    values = {name: array[new] for name, array in values.items()} | rolling

    kept = new >= ends[share[new]] - keep
    live = compute_ingredients(registry, bars, new[kept], begins[kept])
    live = np.column_stack([*(values[name][kept] for name in registry.core), live])
    total = stored[share[new], 0].astype(np.int64) + new - resumed[share[new]]
    tail = new - (registry.tail - 1)
    tail_from = np.where(tail >= begins, days[np.maximum(tail, 0)], 0)
    tail_days = pa.array(tail_from.astype(np.int32), mask=tail < begins).cast(pa.date32())
    state = filter_state(registry, values, total, tail_days, kept, live)
    place = pa.array(np.flatnonzero(~mark)[new])
    found = joined_struct(values, registry.columns, state)
    given = {name: columns[2 + i].take(place) for i, name in enumerate((*BAR_COLUMNS[:4], *PRICES))}
    return pa.RecordBatch.from_arrays([*given.values(), *found.flatten()], [*given, *registry.columns, "filter_state"])


def _filters(
    registry: Registry, bars: Mapping[str, np.ndarray], stored: np.ndarray, resumed: np.ndarray, ends: np.ndarray
) -> dict[str, np.ndarray]:
    """The filters' values and states at every bar after its share's state, NaN at the others."""
    names = list(dict.fromkeys([*registry.recursive, *registry.state]))
    values = {name: np.full(len(bars["close"]), np.nan) for name in names}
    high, low, close = bars["high"], bars["low"], bars["close"]
    for row, first, end in zip(stored, resumed, ends, strict=True):
        if end - first < 2:
            continue
        part = slice(first, end)
        state = dict(zip(registry.state, row[1:], strict=True))
        for name, array in compute_filters(registry, high[part], low[part], close[part], state).items():
            if name in values:
                values[name][part] = array
    return values


def _rolling(
    registry: Registry, bars: Mapping[str, np.ndarray], new: np.ndarray, firsts: np.ndarray
) -> dict[str, np.ndarray]:
    """The rolling columns of the bars at ``new``: the tick's arithmetic over what the bars before them leave."""
    mine = registry.only([name for name in registry.core if name not in registry.recursive])
    before = compute_ingredients(mine, bars, new - 1, firsts)
    state = dict(zip(mine.ingredients, before.T, strict=True))
    at = {name: array[new] for name, array in bars.items()}
    return at_price(mine, at["close"], at["volume"], state, Arrays(), high=at["high"], low=at["low"])
