"""A share's new bars, by the tick's own arithmetic: from the state of the bar before and a tail of bars.

No window function and no Spark: the rolling columns of a bar are ``at_price`` at its close (live.py) over the sums and
extremes of the bars before it, and the filters go on from their stored state. So a day costs one sort of the tails, and
the indicators' three speeds share one definition. Rows equal the whole history's to 1e-12 (a test, over sixty days).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from sise.indicators.algebra import Arrays
from sise.indicators.batch import PRICES, compute_extra, filter_state, joined_struct
from sise.indicators.ingredients import compute_ingredients
from sise.indicators.live import at_price
from sise.indicators.recursive import compute_filters
from sise.indicators.registry import KEPT_SESSIONS, Registry

__all__ = ["Bars", "compute_new_bars"]

_NEVER = np.iinfo(np.int32).min


@dataclass(frozen=True)
class Bars:
    """Adjusted bars of shares one after another, each in order: of which row of ``shares`` they are, day (days since
    1970), market, and open, high, low, close, volume."""

    share: np.ndarray
    day: np.ndarray
    market: pa.Array
    prices: Mapping[str, np.ndarray]


def compute_new_bars(registry: Registry, shares: pd.DataFrame, bars: Bars, *, keep: int = KEPT_SESSIONS) -> pa.Table:
    """with_indicators' rows for the bars from each share's ``start`` on.

    ``shares``: country, symbol, ``start`` and the state of a bar before it, as indicator_state has it (``date``,
    ``bars``, the registry's states), null where the share starts over; ``bars``: from the state's ``tail_from`` on, or
    all. Out: country, symbol, date, market, close, volume, the registry's columns and ``filter_state``, on the last
    ``keep`` bars. Raises where the bar of a state's date is missing.
    """
    places = np.arange(len(shares))
    firsts, ends = np.searchsorted(bars.share, places), np.searchsorted(bars.share, places, side="right")
    known = shares["date"].notna().to_numpy()
    state_day = np.where(known, _days(shares["date"]), _NEVER)
    before = np.bincount(bars.share, bars.day < state_day[bars.share], len(shares)).astype(int)
    resumed = firsts + before  # the state's own bar, or a share's first one
    lost = known & ((resumed >= ends) | (np.append(bars.day, _NEVER)[resumed] != state_day))
    if lost.any():
        raise RuntimeError("a filter state has no bar of its date: run compute_indicators with --full")

    new = np.flatnonzero(bars.day > state_day[bars.share])
    of = bars.share[new]
    begins = firsts[of]
    values = _filters(registry, bars, shares[list(registry.state)].to_numpy(float), known, resumed, ends)
    rolling = _rolling(registry, bars.prices, new, begins)
    values |= compute_extra(registry, bars.prices, firsts, ends)
    values = {name: array[new] for name, array in values.items()} | rolling

    kept = new >= ends[of] - keep
    live = compute_ingredients(registry, bars.prices, new[kept], begins[kept])
    live = np.column_stack([*(values[name][kept] for name in registry.core), live])
    counted = np.where(known, shares["bars"].fillna(0).to_numpy(np.int64), 1)  # at the bar ``resumed``
    total = counted[of] + new - resumed[of]
    tail = new - (registry.tail - 1)
    tail_days = pa.array(bars.day[np.maximum(tail, 0)].astype(np.int32), mask=tail < begins).cast(pa.date32())
    state = filter_state(registry, values, total, tail_days, kept, live)

    asked = pa.array(bars.day[new] >= _days(shares["start"])[of])
    names = {name: pa.array(shares[name], pa.string()).take(pa.array(of)) for name in ("country", "symbol")}
    given = names | {
        "date": pa.array(bars.day[new].astype(np.int32)).cast(pa.date32()),
        "market": bars.market.take(pa.array(new)),
        "close": pa.array(bars.prices["close"][new]),
        "volume": pa.array(bars.prices["volume"][new]),
    }
    found = joined_struct(values, registry.columns, state).flatten()
    return pa.table([*given.values(), *found], [*given, *registry.columns, "filter_state"]).filter(asked)


def _days(dates: pd.Series) -> np.ndarray:
    return np.asarray(dates.to_numpy("datetime64[D]").astype(np.int64))


def _filters(
    registry: Registry, bars: Bars, stored: np.ndarray, known: np.ndarray, resumed: np.ndarray, ends: np.ndarray
) -> dict[str, np.ndarray]:
    """The filters' values and states at every bar after its share's state, NaN at the others."""
    names = list(dict.fromkeys([*registry.recursive, *registry.state]))
    values = {name: np.full(len(bars.day), np.nan) for name in names}
    high, low, close = (bars.prices[name] for name in ("high", "low", "close"))
    for row, state_known, first, end in zip(stored, known, resumed, ends, strict=True):
        if end - first < (2 if state_known else 1):
            continue
        part = slice(first, end)
        state = dict(zip(registry.state, row, strict=True)) if state_known else None
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
    at = {name: bars[name][new] for name in PRICES}
    return at_price(mine, at["close"], at["volume"], state, Arrays(), high=at["high"], low=at["low"])
